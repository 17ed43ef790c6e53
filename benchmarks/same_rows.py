"""Whether two versions of moeprof agree: every exact and routed row of a run of one must be the same in that of the other.

Usage: python benchmarks/same_rows.py OLD_RUN NEW_RUN. Prints what differs; exit status 1 if anything does. Rows that only the new run
has are counted and not judged.
"""

import csv
import sys
from collections import Counter
from pathlib import Path

JUDGED = ("exact", "routed", "forced")


def rows(run: Path) -> dict[tuple[str, ...], tuple[str, float]]:
    """Kind and value of every row by the cells that tell it from others."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return {tuple(cells[:10]): (cells[11], float(cells[12])) for cells in list(csv.reader(file))[1:]}


def main(old: Path, new: Path) -> int:
    """Prints the differences and a summary."""
    before, after = rows(old), rows(new)
    judged = {address: found for address, found in before.items() if found[0] in JUDGED}
    missing = [address for address in judged if address not in after]
    differing = [address for address in judged if address in after and after[address] != before[address]]
    for title, addresses in (("missing", missing), ("differing", differing)):
        for address in addresses[:20]:
            print(title, ",".join(address), before[address], after.get(address))
        if addresses:
            print(title, dict(Counter(address[-1] for address in addresses)))
    lost = [address for address in before if address not in after and address not in judged]
    added = [address for address in after if address not in before]
    print(f"{len(judged)} exact and routed rows: {len(missing)} missing, {len(differing)} differing", end="; ")
    print(f"other rows lost: {dict(Counter(address[-1] for address in lost))}; new rows: {len(added)}")
    return int(bool(missing or differing))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
