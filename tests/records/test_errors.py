"""Errors have two lines: what is wrong and where, then the remedy."""

import pytest

from moeprof.records.errors import MoeprofError, UsageError


def test_an_error_says_what_happened_and_then_the_remedy() -> None:
    error = UsageError("recipe a.toml: no such file", "Give another.")
    assert str(error) == "recipe a.toml: no such file\nGive another."
    assert (error.what, error.remedy) == ("recipe a.toml: no such file", "Give another.")


@pytest.mark.parametrize(("kind", "code"), [(MoeprofError, 1), (UsageError, 2)])
def test_a_failed_run_exits_with_1_and_a_wrong_command_with_2(kind: type[MoeprofError], code: int) -> None:
    assert kind("what", "remedy").exit_code == code


def test_catching_moeproferror_catches_usageerror() -> None:
    assert issubclass(UsageError, MoeprofError)


def test_an_error_has_two_lines_whatever_it_quotes() -> None:
    error = UsageError("--slots a\nb\x1b[31m\u202e\udcff: not a whole number", "Give a number.")
    assert str(error).splitlines() == [r"--slots a\nb\x1b[31m\u202e\udcff: not a whole number", "Give a number."]
    assert len(UsageError("9" * 5000, "Give fewer digits.").what) < 2100
