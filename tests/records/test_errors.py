"""Errors have two lines: what is wrong and where, then the remedy."""

import pytest

from moeprof.records.errors import MoeprofError, UsageError, described


def test_an_error_says_what_happened_and_then_the_remedy() -> None:
    error = UsageError("recipe a.toml: no such file", "Give another.")
    assert str(error) == "recipe a.toml: no such file\nGive another."
    assert (error.what, error.remedy) == ("recipe a.toml: no such file", "Give another.")


@pytest.mark.parametrize(("kind", "code"), [(MoeprofError, 1), (UsageError, 2)])
def test_a_failed_run_exits_with_1_and_a_wrong_command_with_2(kind: type[MoeprofError], code: int) -> None:
    assert kind("what", "remedy").exit_code == code


def test_catching_moeproferror_catches_usageerror() -> None:
    assert issubclass(UsageError, MoeprofError)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    found = described(ModuleNotFoundError("No module named 'pynvml.smi'", name="pynvml.smi"), "a bug")
    assert found.what == "package nvidia-ml-py cannot be imported: No module named 'pynvml.smi'"
    assert (found.remedy, found.exit_code) == ("Install it: pip install nvidia-ml-py", 1)


def test_a_package_that_lacks_a_name_is_to_be_upgraded() -> None:
    with pytest.raises(ImportError) as caught:
        from numpy import no_such_name  # noqa: F401
    assert described(caught.value, "a bug").remedy == "Install it: pip install --upgrade numpy"


def test_a_package_that_cannot_load_its_library_is_recognised_by_the_module_that_raised() -> None:
    with pytest.raises(ImportError) as caught:
        exec("raise ImportError('libx.so: cannot open shared object file')", {"__name__": "torch_tb_profiler.plugin"})
    assert described(caught.value, "a bug").remedy == "Install it: pip install --upgrade torch-tb-profiler"


def test_any_other_exception_is_a_bug_and_is_reported_in_one_line() -> None:
    for error in (ValueError("one\ntwo"), ModuleNotFoundError("one", name="moeprof.nowhere")):
        found = described(error, "a bug")
        assert (found.what, found.remedy, found.exit_code) == (f"{type(error).__name__}: one", "a bug", 1)


def test_an_error_of_moeprof_is_reported_as_it_is() -> None:
    error = UsageError("what", "remedy")
    assert described(error, "a bug") is error
