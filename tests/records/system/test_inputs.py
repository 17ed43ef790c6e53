"""Files from outside are read once, within a bound, whatever they are."""

import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.system import inputs
from moeprof.records.system.inputs import (
    MAX_BYTES,
    SHARE,
    InputFile,
    filled_lines,
    limit_inputs,
    lines_of,
    max_bytes,
    reported,
)
from moeprof.records.system.resources import free_memory
from tests.records.system.pipes import fed


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the bound for the test alone."""
    monkeypatch.delenv(MAX_BYTES, raising=False)
    return lambda size: monkeypatch.setenv(MAX_BYTES, size)


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_once_and_can_be_used_as_often_as_a_file(tmp_path: Path, packed: bool) -> None:
    content = b"one\ntwo\n" * 40_000
    with fed(tmp_path / "pipe", gzip.compress(content) if packed else content) as pipe:
        file = InputFile(pipe)
        assert file.head == content[: 2**16]
        assert file.read() == file.read() == content
        with file.opened() as opened:
            assert opened.seek(8) == 8
            assert opened.read(4) == b"one\n"


def test_a_process_keeps_what_it_has_read_of_a_pipe(tmp_path: Path) -> None:
    with fed(tmp_path / "pipe", b"one") as pipe:
        assert [InputFile(pipe).read() for _ in range(3)] == [b"one"] * 3


def test_an_input_that_is_as_large_as_allowed_is_read_and_one_byte_more_is_refused(
    tmp_path: Path, limit: Callable[[str], None]
) -> None:
    contents = {"plain": b"x" * 2048, "gzip": gzip.compress(b"x" * 2048), "zstd": zstd(b"x" * 2048)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    limit("2KiB")
    assert [len(InputFile(tmp_path / name).read()) for name in contents] == [2048] * 3
    limit("2047")
    for file in (tmp_path / name for name in contents):
        with pytest.raises(UsageError) as caught, reported(f"text {file}", "Another remedy."):
            InputFile(file).text()
        assert caught.value.what == f"text {file}: more than 2.00 KiB"
        assert caught.value.remedy == "Set --max-bytes SIZE to read more, if the memory suffices."


def test_without_a_limit_an_archive_may_hold_16_times_its_bytes_or_32_mib(
    tmp_path: Path, limit: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PACKED_BYTES", 2**20)
    path = tmp_path / "packed"
    dense, empty = os.urandom(2**17), 2**20 * b"x"
    for content, refused in ((empty, False), (empty + b"x", True), (dense + empty, False), (dense + 2 * empty, True)):
        path.write_bytes(gzip.compress(content))
        if refused:
            with pytest.raises(ValueError, match="more than"):
                InputFile(path).read()
            limit("1GiB")
        assert InputFile(path).read() == content
        monkeypatch.delenv(MAX_BYTES, raising=False)
    path.write_bytes(2 * empty)
    assert InputFile(path).read() == 2 * empty


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_an_archive_that_holds_a_thousand_times_its_size_is_not_unpacked(
    tmp_path: Path, limit: Callable[[str], None], pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(pack(bytes(64 * 2**20)))
    assert path.stat().st_size < 2**16 + 2**10
    limit("1MiB")
    with pytest.raises(ValueError, match=r"more than 1 MiB"):
        InputFile(path).read()


def test_a_stream_that_never_ends_is_left_at_the_bound(tmp_path: Path, limit: Callable[[str], None]) -> None:
    pipe, written = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def write_for_ever() -> None:
        with pipe.open("wb", buffering=0) as file:
            while True:
                try:
                    written.append(file.write(bytes(2**16)))
                except BrokenPipeError:
                    break

    writer = threading.Thread(target=write_for_ever, daemon=True)
    writer.start()
    limit("4MiB")
    with pytest.raises(ValueError, match=r"more than 4 MiB"):
        InputFile(pipe).read()
    writer.join(timeout=5)
    assert not writer.is_alive()
    assert sum(written) < 8 * 2**20


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_refused_before_a_byte_is_read(device: str) -> None:
    with pytest.raises(ValueError, match="a device, not a file"):
        InputFile(Path(device)).read()


def test_without_an_option_the_bound_is_a_share_of_the_free_memory() -> None:
    assert max_bytes() * SHARE == pytest.approx(free_memory(), rel=0.2)


def test_the_option_is_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, "")
    limit_inputs("1.5KiB")
    assert max_bytes() == 1536
    with pytest.raises(UsageError, match="--max-bytes much: 'much' is not a size"):
        limit_inputs("much")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfa\r\nb\rc\n", "a\nb\nc\n"),
        ("\ufeffa\u00e9\r\n".encode("utf-16-le"), "a\u00e9\n"),
        ("\ufeffa\u00e9\r\n".encode("utf-16-be"), "a\u00e9\n"),
        ("\ufeffa\u00e9\r\n".encode("utf-32-le"), "a\u00e9\n"),
        (gzip.compress(b"\xef\xbb\xbfa", mtime=0), "a"),
        (gzip.compress(b"a", mtime=0) + gzip.compress(b"b", mtime=0), "ab"),
        (zstd(b"\xef\xbb\xbfa"), "a"),
        (zstd(b"a") + zstd(b"b"), "ab"),
        (b"", ""),
    ],
)
def test_marks_line_ends_and_archives_are_understood_whatever_the_name(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert InputFile(tmp_path / "file").text() == text


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"a\nb\xe9c", "line 2, column 2: byte 0xe9 is not UTF-8"),
        (b"\xef\xbb\xbf\xc3\xa9\xff", "line 1, column 2: byte 0xff is not UTF-8"),
        ("a\nbc".encode("utf-16-be"), "line 1, column 1: a NUL character"),
        (gzip.compress(b"text" * 9, mtime=0)[:-9], "truncated gzip file"),
        (gzip.compress(b"text", mtime=0)[:-8] + bytes(8), "damaged gzip file: CRC check failed"),
        (gzip.compress(b"text", mtime=0) + b"more", "damaged gzip file: Not a gzipped file"),
        (zstd(b"text" * 9)[:-3], "truncated zstd file"),
        (zstd(b"text") + b"more", "damaged zstd file: "),
    ],
)
def test_what_is_not_text_is_named_with_its_place(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=cause):
        InputFile(tmp_path / "file").text()


@given(st.text("a \n\t\u2028"), st.integers(1, 9))
def test_filled_lines_are_all_lines_but_the_blank_ones(text: str, size: int) -> None:
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    expected = [(number, line.lstrip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    assert list(filled_lines(pieces)) == expected
    assert list(lines_of(pieces)) == text.removesuffix("\n").split("\n")[: len(text)]
