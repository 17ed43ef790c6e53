"""What else the machine did: counted by the system, in stretches between passes."""

import os
from pathlib import Path

import pytest

from moeprof.instrument.load import LoadMeter, Usage, own_time, usage
from moeprof.records.run.machine_load import MachineLoad


def test_the_first_line_of_linux_counts_is_read_in_seconds(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  {3 * tick} {tick} {2 * tick} {50 * tick} {5 * tick} 0 {tick} {4 * tick} 0 0\ncpu0 1 2 3 4\n")
    assert usage(lambda: 2.5, stat) == Usage(total=66, idle=55, stolen=4, own=2.5)


@pytest.mark.parametrize("text", ["", "cpu 1 2 3", "intr a b c d e f g h"])
def test_counts_that_are_not_linux_counts_are_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "stat").write_text(text)
    assert usage(path=tmp_path / "stat") is None
    assert usage(path=tmp_path / "missing") is None


def test_own_time_counts_the_work_of_this_process() -> None:
    start = own_time()
    while own_time() - start < 0.03:
        sum(range(10_000))
    assert own_time() - start >= 0.03


def meter(*readings: Usage | None) -> LoadMeter:
    found = iter(readings)
    return LoadMeter(lambda: next(found), before=lambda: 0.25)


def test_the_stretch_in_which_others_used_most_is_kept() -> None:
    quiet, crowded, calm = Usage(0, 0, 0, 0), Usage(10, 4, 0, 6), Usage(20, 5, 1, 9)
    found = meter(quiet, crowded, calm, Usage(30, 14, 1, 10))
    assert found.sample() == MachineLoad(before=0.25)
    assert found.sample() == MachineLoad(before=0.25, others=0, stolen=0)
    assert found.sample() == MachineLoad(before=0.25, others=0.5, stolen=0.1)
    assert found.sample() == MachineLoad(before=0.25, others=0.5, stolen=0.1)


def test_a_stretch_of_a_few_ticks_is_joined_to_the_next_one() -> None:
    found = meter(Usage(0, 0, 0, 0), Usage(0.02, 0, 0, 0), Usage(10, 8, 0, 1))
    assert found.sample() == found.sample() == MachineLoad(before=0.25)
    assert found.sample().others == pytest.approx(0.1)


def test_without_counts_the_load_before_the_run_is_known() -> None:
    found = meter(None, None)
    assert found.sample() == found.sample() == MachineLoad(before=0.25)


@pytest.mark.parametrize(
    ("load", "busy"),
    [
        (MachineLoad(), False),
        (MachineLoad(before=0.4), False),
        (MachineLoad(before=0.6), True),
        (MachineLoad(before=3, others=0.02, stolen=0), False),
        (MachineLoad(before=0, others=0.09, stolen=0), False),
        (MachineLoad(before=0, others=0.08, stolen=0.05), True),
    ],
)
def test_a_machine_is_busy_by_what_happened_during_the_run_if_that_is_known(load: MachineLoad, busy: bool) -> None:
    assert load.busy == busy
