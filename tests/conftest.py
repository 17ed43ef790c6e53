"""Fixtures that several packages share."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from moeprof.cli import group
from moeprof.records.system.signals import ENDINGS, asked, raise_ended

settings.register_profile("machines that others use too", deadline=None)
settings.load_profile("machines that others use too")

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """The device that a test runs on: always the CPU, and with the marker `cuda` (`make test-cuda`) a GPU if there is one."""
    return str(request.param)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real text, traces and reference results beside the checkout; the test is skipped if it is absent."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.skip(f"no third-party data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the files that moeprof caches between runs out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def little_garbage() -> None:
    """Freezes what is alive, mostly modules and what pytest collected: a full collection before timed rounds takes 0.2 s of it."""
    gc.collect()
    gc.freeze()


MICRO = {
    "lm": """
schema = 1
workload = "lm"
[model]
decoder_layers = 2
dim = 16
ffn_dim = 24
heads = 2
vocab_size = 260
experts = 4
moe_every = 2
activation = "gelu"
positions = "alibi"
tokenizer = "bytes"
[gating]
capacity_fraction = 0.5
[load]
batch_size = 2
sequence_length = 12
batches = 2
decode_steps = 3
prompt_length = 5
[measure]
warmup = 1
rounds = 5
""",
    "mt": """
schema = 1
workload = "mt"
[model]
encoder_layers = 2
decoder_layers = 2
dim = 16
ffn_dim = 24
heads = 2
vocab_size = 2560
experts = 4
moe_every = 2
activation = "relu"
expert_output_masking = 0.2
tokenizer = "words"
[load]
batch_size = 3
sequence_length = 10
batches = 2
decode_steps = 4
[measure]
warmup = 1
rounds = 5
""",
}


@pytest.fixture
def micro(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """A function that writes a recipe of `lm` or `mt` that runs in a fraction of a second, and returns its path.

    The recipe runs on the device of the test, if the test has one.
    """
    device = request.getfixturevalue("device") if "device" in request.fixturenames else "cpu"

    def write(workload: str) -> Path:
        path = tmp_path / f"{workload}-micro.toml"
        path.write_text(f'{MICRO[workload]}device = "{device}"\n')  # [measure] is the last section
        return path

    return write


@pytest.fixture(scope="session")
def characterized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `moeprof characterize` left of the small language model, made once for the tests of a process: read it or copy it."""
    recipe = tmp_path_factory.mktemp("characterized") / "lm-micro.toml"
    recipe.write_text(MICRO["lm"])
    with redirect_stdout(StringIO()):
        assert group.run(["characterize", str(recipe), "--quiet", "--out", str(recipe.with_name("run"))]) == 0
    return recipe.with_name("run")


@pytest.fixture
def signals() -> Iterator[None]:
    """Signals raise `Ended`, as in a command, while the test runs."""
    before = {number: signal.getsignal(number) for number in ENDINGS}
    for number in ENDINGS:
        signal.signal(number, raise_ended)
    yield
    asked.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def moeprof(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs one command in this process, and returns its exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = group.run([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call
