"""Which of several endings was the cause, and what a rank tells of its own."""

import signal
from pathlib import Path

import pytest

from moeprof.parallel.failure import FILE, Failure, LateRankError, LostRankError, cause, failure_of, read_failure, write_failure
from moeprof.records.errors import MoeprofError, UsageError


def caught(error: BaseException) -> Failure:
    """As a rank would tell it."""
    try:
        raise error
    except BaseException as raised:
        return failure_of(raised)


OWN, LATER = caught(ValueError("first\nmore")), caught(UsageError("no such file", "Give another."))
LOST, LATE = caught(LostRankError("another rank has ended", "")), caught(LateRankError("too late", "Wait."))
KILLED, ENDED = -signal.SIGKILL, -signal.SIGTERM


@pytest.mark.parametrize(
    ("failures", "exit_codes", "what", "exit_code"),
    [
        ({0: LOST, 1: OWN}, {0: 1, 1: 1}, "rank 1: ValueError: first", 1),
        ({0: LATER, 1: OWN}, {0: 2, 1: 1}, "rank 1: ValueError: first", 1),
        ({0: LATER, 1: LATER}, {0: 2, 1: 2}, "rank 0: no such file", 2),
        ({0: LOST}, {0: 1, 1: KILLED}, "rank 1 was killed by SIGKILL", 1),
        ({0: LOST}, {0: 1, 1: ENDED, 2: KILLED}, "rank 2 was killed by SIGKILL", 1),
        ({0: LATE}, {0: 1, 1: KILLED}, "rank 0: too late", 1),
        ({}, {1: ENDED}, "rank 1 was killed by SIGTERM", 1),
        ({0: LOST}, {0: 1, 1: 143}, "rank 1 was killed by SIGTERM", 1),
        ({0: LOST}, {0: 1, 1: 143, 2: KILLED}, "rank 2 was killed by SIGKILL", 1),
        ({1: LOST}, {1: 1}, "rank 1: another rank has ended", 1),
        ({}, {1: 3}, "rank 1 ended with exit code 3", 3),
    ],
)
def test_the_cause_is_the_first_error_that_no_other_rank_explains(
    failures: dict[int, Failure], exit_codes: dict[int, int], what: str, exit_code: int
) -> None:
    error = cause(failures, exit_codes)
    assert (error.what, error.exit_code) == (what, exit_code)
    assert error.remedy or failures == {1: LOST}


def test_a_rank_tells_its_error_with_the_place_and_the_launcher_reads_it(tmp_path: Path) -> None:
    write_failure(OWN, tmp_path / "0")
    assert read_failure(tmp_path / "0") == OWN
    assert "in caught" in OWN.trace
    assert caught(MoeprofError("what", "remedy")).remedy == "remedy"


@pytest.mark.parametrize("left", ["", "{", "[]", '{"what": 1}', '{"colour": "red"}', "\udcff"])
def test_what_a_rank_left_behind_is_read_with_caution(tmp_path: Path, left: str) -> None:
    assert read_failure(tmp_path) is None
    (tmp_path / FILE).write_text(left, errors="surrogateescape")
    assert read_failure(tmp_path) is None
