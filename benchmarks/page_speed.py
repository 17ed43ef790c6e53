"""Size, time and memory of the report page of one long trace, and how soon a browser reacts on it.

Limits: 12 layers of 512 experts and 10 million routings in at most 12 MB, written in at most 15 s and 2 GB; the first interaction
after at most 2 s. Times are processor time, so that they hold on a machine that others use too.

python benchmarks/page_speed.py [--routings N] [--experts N] [--run DIR]
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis_speed import NUM_LAYERS, synthetic
from playwright.sync_api import sync_playwright

LIMITS = {"MB": 12.0, "s to write it": 15.0, "GB to write it": 2.0, "s until the first selector has an effect": 2.0}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main() -> int:
    """Prints a line for every limit; exit status 1 if one is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routings", type=int, default=10_000_000)
    parser.add_argument("--experts", type=int, default=512)
    parser.add_argument("--run", type=Path, help="characterized before, instead of a synthetic trace")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        run = options.run or characterized(Path(folder), options.routings, options.experts)
        seconds, gigabytes = write(run, page)
        found = [page.stat().st_size / 1e6, seconds, gigabytes, first_reaction(page)]
    print(f"{options.run or f'{NUM_LAYERS} layers, {options.experts} experts, {options.routings:,} routings'}")
    for (name, limit), value in zip(LIMITS.items(), found, strict=True):
        print(f"{value:8.2f} {name} (asked: {limit:g})")
    return int(any(value > limit for value, limit in zip(found, LIMITS.values(), strict=True)))


def characterized(folder: Path, routings: int, experts: int) -> Path:
    """The run directory of a synthetic trace."""
    synthetic(routings, 48, 3, experts).write(folder / "trace.parquet")
    moeprof("characterize", str(folder / "trace.parquet"), "--out", str(folder / "run"))
    return folder / "run"


def write(run: Path, page: Path) -> tuple[float, float]:
    """Writes the page in a process of its own; its processor time, and the most memory that any child process held."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    page.write_bytes(moeprof("report", str(run), "--format", "html"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss * 1024 / 1e9


def moeprof(*arguments: str) -> bytes:
    """What a command prints."""
    return subprocess.run([sys.executable, "-m", "moeprof", "--quiet", *arguments], check=True, stdout=subprocess.PIPE).stdout


def first_reaction(file: Path) -> float:
    """Processor time of the page from its request until a choice in the bar at the top has reached a figure."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(120_000)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(file.as_uri(), wait_until="commit")
        control = page.locator("#selectors select").last
        control.select_option(index=1)
        facet, choice = control.get_attribute("data-facet"), control.input_value()
        shown = "[...document.querySelectorAll(`figure [data-facet=${facet}]`)]"
        reached = f"([facet, choice]) => {shown}.some((each) => each.value === choice)"
        page.wait_for_function(reached, arg=[facet, choice])
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        browser.close()
    return float(metrics["TaskDuration"])


if __name__ == "__main__":
    sys.exit(main())
