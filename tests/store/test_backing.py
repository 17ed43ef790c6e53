"""The file of experts is written once and whole, read from the disk every time, and never trusted when it is not what it was."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.ffn.mlp import MLP
from moeprof.store import backing as module
from moeprof.store.backing import BackingFile, Contents, LayerContents, backing
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights

from .shelves import (
    CHILDREN,
    ENTRY_BYTES,
    LAYERS,
    bytes_read,
    contents,
    entry_of,
    filling,
    half_written,
    on_disk,
    own_disk,
    read_from,
    two_lines,
)

KEYS = [(layer, expert) for layer in LAYERS for expert in range(4)]
NEVER = "nobody asks for weights"


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_disk(tmp_path, monkeypatch)


@pytest.fixture
def path() -> Path:
    """A good file of four experts in two layers, a while after it was written."""
    on_disk(4).close()
    time.sleep(0.01)  # older kernels tell times of change 4 ms apart
    return contents(4).path


def unasked(*_: object) -> None:
    raise AssertionError(NEVER)


def all_right(file: BackingFile) -> bool:
    """Whether every entry is what it should be."""
    return all(read_from(file, *key) == entry_of(*key, 4) for key in KEYS)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """In place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def refused(call: Any, *arguments: Any) -> MoeprofError:
    """The error of a call, which must be one for users."""
    with pytest.raises(MoeprofError) as caught:
        call(*arguments)
    assert two_lines(caught.value)
    return caught.value


def leftovers() -> list[str]:
    """Files in the folder of expert files, without locks."""
    return sorted(one.name for one in contents(4).path.parent.iterdir() if one.suffix != ".lock")


def one_layer(num_experts: int, width: int) -> tuple[Contents, EntryLayout]:
    """Contents with layer 0 only, of experts whose both widths are `width`, and their layout."""
    layout = EntryLayout(MLP.shapes(width, width, bias=True), torch.float32)
    return Contents(weights_hash="a hash", layers={"0": LayerContents.of(layout, num_experts)}), layout


# What is in the file


def test_the_file_is_a_header_checksums_and_entries_that_begin_at_pages(path: Path) -> None:
    """Read with nothing of moeprof: magic, length, JSON, CRC-32 of each entry, zeros up to a page, entries."""
    whole, entries = path.read_bytes(), [entry_of(*key, 4) for key in KEYS]
    (length,) = struct.unpack("<Q", whole[16:24])
    assert whole[:16] == b"moeprof experts\n"
    assert whole[24 : 24 + length].decode() == (
        '{"schema_version":3,"weights_hash":"a hash","layers":{'
        '"1":{"num_experts":4,"tensors":{"w1":[8,12],"b1":[12],"w2":[12,8],"b2":[8]},"dtype":"float32","other_dtypes":{}},'
        '"3":{"num_experts":4,"tensors":{"w1":[8,12],"b1":[12],"w2":[12,8],"b2":[8]},"dtype":"float32","other_dtypes":{}}}}'
    )
    sums = struct.unpack("<8I", whole[24 + length : 56 + length])
    assert list(sums) == [zlib.crc32(entry) for entry in entries]
    assert not any(whole[56 + length : 4096])
    assert whole[4096:] == b"".join(entries)


@pytest.mark.parametrize(("num_experts", "pages"), [(473, 1), (474, 2), (985, 2), (986, 3)])
def test_checksums_of_many_experts_take_several_pages(num_experts: int, pages: int) -> None:
    """A header of 303 bytes and twice the digits of the number, and 8 bytes for each expert of two layers."""
    assert contents(num_experts).first_entry == pages * 4096
    assert contents(num_experts).file_bytes == (pages + 2 * num_experts) * 4096


def test_it_is_written_once() -> None:
    written = []

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        written.append((layer, expert))
        filling(4)(layer, expert, into)

    assert all_right(backing(contents(4), fill))
    assert written == KEYS
    assert all_right(backing(contents(4), unasked))
    assert leftovers() == [contents(4).path.name]


def test_other_weights_have_another_file() -> None:
    one, other = contents(4), contents(4, "another hash")
    assert one.path != other.path
    on_disk(4)
    with pytest.raises(AssertionError, match=NEVER):
        backing(other, unasked)


def test_a_file_that_was_deleted_is_written_again(path: Path) -> None:
    path.unlink()
    assert all_right(on_disk(4))


# Where the bytes come from


def test_every_read_comes_from_the_disk_also_the_second_of_the_same_entry() -> None:
    file, asked = on_disk(4), 0
    read_from(file, "1", 0)  # whatever has to be loaded for the first read
    before = bytes_read()
    for layer, expert in (*KEYS, *[("1", 2)] * 200, *KEYS * 10):
        read_from(file, layer, expert)
        asked += ENTRY_BYTES
    assert asked == 288 * 4096
    assert bytes_read() - before == pytest.approx(asked, rel=0.05)


def test_large_entries_are_read_to_their_last_byte() -> None:
    """2 x 512 x 512 numbers of 4 bytes and both biases: 513 pages, more than a disk moves at once."""
    large, layout = one_layer(2, 512)

    def fill(_: str, expert: int, into: ExpertWeights) -> None:
        for number, view in enumerate(into.values(), 1):
            view.fill_(10 * expert + number)

    file, slab_1B = backing(large, fill), layout.slab(1, "cpu")
    before = bytes_read()
    file.read("0", 1, slab_1B[0])
    assert layout.entry_bytes == 513 * 4096
    assert bytes_read() - before == pytest.approx(513 * 4096, rel=0.05)
    whole = layout.weights(slab_1B)
    assert [(weights == 10 + number).all().item() for number, weights in enumerate(whole.values(), 1)] == [True] * 4


def test_a_read_that_comes_in_pieces_is_put_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, layout = one_layer(1, 64)
    file = backing(large, lambda _, expert, into: into["w2"].fill_(7))
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, offset: whole(descriptor, [buffers[0][:4096]], offset))
    slab_1B = layout.slab(1, "cpu").fill_(255)
    file.read("0", 0, slab_1B[0])
    weights = layout.weights(slab_1B)
    assert (weights["w2"] == 7).all()
    assert not weights["w1"].any()
    assert not weights["b2"].any()


def test_layers_may_differ_in_the_number_the_size_and_the_dtype_of_their_experts() -> None:
    """Layer a has 3 experts of one page, layer b has 2 of two pages: 1,100 numbers of 4 bytes."""
    layouts = {
        "a": EntryLayout({"w": (3, 5), "scale": (2,)}, torch.bfloat16, {"scale": torch.float32}),
        "b": EntryLayout({"w": (20, 55)}, torch.float32),
    }
    sizes = {"a": 3, "b": 2}
    several = Contents(weights_hash="", layers={name: LayerContents.of(layouts[name], sizes[name]) for name in layouts})

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        for view in into.values():
            view.fill_(expert + 1 + (10 if layer == "b" else 0))

    assert several.layouts == layouts
    file = backing(several, fill)
    assert file.path.stat().st_size == (1 + 3 + 2 * 2) * 4096
    for layer, expert, value in [("b", 1, 12), ("a", 2, 3), ("b", 0, 11), ("a", 0, 1), ("a", 1, 2)]:
        entry_B = layouts[layer].slab(1, "cpu").fill_(255)[0]
        file.read(layer, expert, entry_B)
        assert {float(view.min()) for view in layouts[layer].entry(entry_B).values()} == {value}
        assert {float(view.max()) for view in layouts[layer].entry(entry_B).values()} == {value}


# What is not what it should be


@pytest.mark.parametrize("left", [8 * 4096, 4096 + 100, 5 * 4096 + 7, 600])
def test_a_file_that_was_truncated_is_not_opened(path: Path, left: int) -> None:
    os.truncate(path, left)
    error = refused(backing, contents(4), unasked)
    assert str(error) == (
        f"expert file {path}: size is {left:,} bytes instead of 36,864\nDelete the file; it is written again when it is needed."
    )
    assert error.exit_code == 1


@pytest.mark.parametrize("left", [3 * 4096, 3 * 4096 + 2048, 3 * 4096 + 7, 0])
@pytest.mark.parametrize("seen", [True, False])
def test_a_file_that_is_truncated_while_it_is_open_gives_no_more_records(path: Path, left: int, seen: bool) -> None:
    """Records 0 and 1 would still be whole, but whoever changed the file may have changed those as well."""
    file = BackingFile(path, contents(4))
    assert not seen or all_right(file)
    os.truncate(path, left)
    for layer, expert in KEYS:
        error = refused(read_from, file, layer, expert)
        assert error.what == f"expert file {path}: it was changed while in use"


@pytest.mark.parametrize("seen", [True, False])
def test_a_file_that_is_changed_in_place_while_it_is_open_gives_no_more_records(path: Path, seen: bool) -> None:
    file = BackingFile(path, contents(4))
    assert not seen or all_right(file)
    overwrite(path, 2 * 4096, b"\1")
    for layer, expert in KEYS:
        error = refused(read_from, file, layer, expert)
        assert error.what == f"expert file {path}: it was changed while in use"


def test_a_file_that_is_replaced_while_it_is_open_goes_on_serving_what_it_held(path: Path) -> None:
    file = BackingFile(path, contents(4))
    assert read_from(file, "1", 0) == entry_of("1", 0, 4)
    other = path.with_name("other")
    other.write_bytes(os.urandom(path.stat().st_size))
    other.replace(path)
    assert all_right(file)
    path.unlink()
    assert all_right(file)


@pytest.mark.parametrize("entry", [0, 5, 7])
@pytest.mark.parametrize("byte", [0, 500, 847, 4095])
def test_a_flipped_byte_is_found_and_the_other_entries_are_right(path: Path, entry: int, byte: int) -> None:
    where = 4096 * (1 + entry) + byte
    overwrite(path, where, bytes([path.read_bytes()[where] ^ 1]))
    file = BackingFile(path, contents(4))
    for number, (layer, expert) in enumerate(KEYS):
        if number != entry:
            assert read_from(file, layer, expert) == entry_of(layer, expert, 4)
            continue
        for _ in range(2):
            error = refused(read_from, file, layer, expert)
            assert error.what == f"expert file {path}: expert {expert} of layer {layer} has a wrong checksum"


def test_a_flipped_checksum_is_found_as_well(path: Path) -> None:
    overwrite(path, len(contents(4).header), b"\xff\xff\xff\xff")
    file = BackingFile(path, contents(4))
    assert "expert 0 of layer 1" in refused(read_from, file, "1", 0).what
    assert read_from(file, "1", 1) == entry_of("1", 1, 4)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"weights_hash": "a much longer hash than ours"}, "weights_hash differs from what was expected"),
        ({"weights_hash": ""}, "weights_hash differs from what was expected"),
        ({"layers": {"1": {"num_experts": 4}}}, "layers differs from what was expected"),
        ({"layers": {}}, "layers differs from what was expected"),
        ({"schema_version": 2}, "schema_version differs from what was expected"),
        ({"schema_version": 4, "compression": {"name": "zstd"}}, "schema_version differs from what was expected"),
        ({"compression": "zstd"}, "header differs from what was expected"),
    ],
)
def test_a_file_with_another_header_is_refused_by_what_is_different(path: Path, changed: dict[str, Any], why: str) -> None:
    """Also where the header is longer or shorter, or says more than is known here."""
    document = json.dumps(contents(4).model_dump() | changed).encode()
    path.write_bytes((b"moeprof experts\n" + struct.pack("<Q", len(document)) + document).ljust(4096, b"\0") + bytes(4096 * 8))
    error = refused(backing, contents(4), unasked)
    assert str(error) == f"expert file {path}: {why}\nDelete the file; it is written again when it is needed."


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not an expert file"),
        (b"moeprof expert", "not an expert file"),
        (bytes(9 * 4096), "not an expert file"),
        (random.Random(0).randbytes(9 * 4096), "not an expert file"),
        (b"moeprof experts\n", "damaged header"),
        (b"moeprof experts\n" + b"\xff" * 9000, "damaged header"),
        (b"moeprof experts\n" + struct.pack("<Q", 3) + b"[1]" + bytes(9000), "damaged header"),
        (b"moeprof experts\n" + struct.pack("<Q", 2) + b"{}" + bytes(9000), "schema_version differs from what was expected"),
    ],
)
def test_what_is_no_file_of_experts_is_refused(path: Path, data: bytes, why: str) -> None:
    path.write_bytes(data)
    assert refused(backing, contents(4), unasked).what == f"expert file {path}: {why}"


def test_a_damaged_header_is_refused(path: Path) -> None:
    overwrite(path, 24, b"?")
    assert refused(backing, contents(4), unasked).what == f"expert file {path}: damaged header"


def test_a_folder_of_that_name_is_refused(path: Path) -> None:
    path.unlink()
    path.mkdir()
    assert refused(backing, contents(4), unasked).what == f"expert file {path}: is a directory"


def test_a_file_that_is_missing_when_it_is_opened_says_so(path: Path) -> None:
    path.unlink()
    error = refused(BackingFile, path, contents(4))
    assert error.what == f"expert file {path}: no such file or directory"
    assert "Delete" not in error.remedy


def test_a_disk_that_fails_is_named_and_the_next_read_is_right(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BackingFile(path, contents(4))

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", broken)
        error = refused(read_from, file, "3", 2)
    assert error.what == f"expert file {path}: expert 2 of layer 3 could not be read: input/output error"
    assert all_right(file)


# Where it cannot be written


def test_memory_is_refused_as_a_slower_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        if module.file_system(Path(folder)) != "tmpfs":
            monkeypatch.setattr(module, "file_system", lambda _: "tmpfs")
        error = refused(backing, contents(4), unasked)
        assert isinstance(error, UsageError)
        assert str(error) == (
            f"expert file in {folder}/moeprof/experts: tmpfs is memory, not a slower tier\n"
            "Set XDG_CACHE_HOME to a folder on a disk."
        )


def without_direct_io(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The file system of all files refuses it."""
    whole = os.open

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(code, os.strerror(code), str(path))
        return whole(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.parametrize("there", [True, False])
def test_a_file_system_without_direct_io_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, disk: Path, there: bool
) -> None:
    if there:
        on_disk(4)
    monkeypatch.setattr(module, "file_system", lambda _: "9p")
    without_direct_io(monkeypatch, errno.EINVAL)
    error = refused(backing, contents(4), unasked)
    assert isinstance(error, UsageError)
    assert str(error) == (
        f"expert file in {disk}/moeprof/experts: 9p has no direct I/O (invalid argument)\n"
        "Set XDG_CACHE_HOME to a folder on a disk."
    )


def test_a_descriptor_that_cannot_be_had_is_no_lack_of_direct_io(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_direct_io(monkeypatch, errno.EMFILE)
    assert refused(backing, contents(4), unasked).what == f"expert file {path}: too many open files"


def test_too_little_room_is_known_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 36_863, 36_863))
    error = refused(backing, contents(4), unasked)
    assert error.what == f"expert file {contents(4).path} of 36 KiB: only 36.0 KiB are free on its disk"
    assert error.remedy == "Free some disk space, or set XDG_CACHE_HOME to a folder on a larger disk."
    assert leftovers() == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 36_864, 36_864))
    assert all_right(on_disk(4))


def test_what_a_killed_process_left_does_not_count_as_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for one file and no more, most of it taken by half a file."""
    path = contents(4).path
    path.parent.mkdir(parents=True)
    half_written(path).write_bytes(bytes(30_000))

    def disk_usage(folder: Path) -> Any:
        taken = sum(one.stat().st_size for one in folder.iterdir())
        return shutil._ntuple_diskusage(40_000, taken, 40_000 - taken)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert all_right(on_disk(4))
    assert leftovers() == [path.name]


def test_a_disk_that_is_full_while_the_file_is_written_leaves_nothing(disk: Path) -> None:
    """/dev/full is a disk that is."""
    path = contents(4).path
    path.parent.mkdir(parents=True)
    whole = module.write_entries

    def onto_full_disk(file: Any, *more: Any) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        os.dup2(descriptor, file.fileno())
        os.close(descriptor)
        whole(file, *more)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "write_entries", onto_full_disk)
        error = refused(on_disk, 4)
    assert error.what == f"expert file {path} of 36 KiB: no space left on device while writing it"
    assert error.remedy == "Free some disk space, or set XDG_CACHE_HOME to a folder on a larger disk."
    assert leftovers() == []
    assert all_right(on_disk(4))


@pytest.mark.parametrize("error", [RuntimeError("no weights"), KeyboardInterrupt(), MoeprofError("what", "Remedy.")])
@pytest.mark.parametrize("after", [0, 5, 7])
def test_weights_that_cannot_be_had_leave_nothing(error: BaseException, after: int) -> None:
    asked = []

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        asked.append((layer, expert))
        if len(asked) > after:
            raise error
        filling(4)(layer, expert, into)

    with pytest.raises(type(error)):
        backing(contents(4), fill)
    assert asked == KEYS[: after + 1]
    assert leftovers() == []
    assert all_right(on_disk(4))


def test_a_checkpoint_that_cannot_be_read_is_not_the_fault_of_the_expert_file() -> None:
    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    error = refused(backing, contents(4), fill)
    assert error.what == "expert 0 of layer 1 has no weights: input/output error"
    assert "checkpoint" in error.remedy
    assert leftovers() == []


# Other processes


def in_child(work: Any, *arguments: Any) -> Any:
    """What a process of its own sends back; it must end well."""
    receiver, sender = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=work, args=(sender, *arguments))
    child.start()
    sender.close()
    try:
        told = receiver.recv() if receiver.poll(60) else "nothing"
        child.join(10)
        assert child.exitcode == 0
    finally:
        child.kill()
    return told


def told(sender: Connection, cache: Path) -> None:
    """Whether all entries are right, or the kind of the error and its lines."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    try:
        sender.send(all_right(on_disk(4)))
    except Exception as error:
        sender.send((type(error).__name__, str(error)))


def with_small_files(sender: Connection, cache: Path) -> None:
    """The file system gives no file more than 5 pages."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 4096, 5 * 4096))
    told(sender, cache)


def test_a_file_that_may_not_grow_so_large_leaves_nothing(disk: Path) -> None:
    kind, message = in_child(with_small_files, disk)
    assert kind == "MoeprofError"
    assert message == (
        f"expert file {contents(4).path} of 36 KiB: file too large while writing it\n"
        "Free some disk space, or set XDG_CACHE_HOME to a folder on a larger disk."
    )
    assert leftovers() == []
    assert all_right(on_disk(4))


def as_nobody(sender: Connection, cache: Path) -> None:
    """Without the rights that root has over everybody's files."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    told(sender, cache)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield own_disk(Path(folder), monkeypatch)
        for one in (contents(4).path.parent, Path(folder)):
            one.chmod(0o755)


CANNOT = "Set XDG_CACHE_HOME to a writable folder."


def test_a_folder_that_cannot_be_written_will_do_where_the_file_is_there(public: Path) -> None:
    on_disk(4)
    contents(4).path.parent.chmod(0o555)
    assert in_child(as_nobody, public) is True


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_cannot_be_written_or_entered_is_an_error(public: Path, mode: int) -> None:
    contents(4).path.parent.mkdir(parents=True)
    contents(4).path.parent.chmod(mode)
    kind, message = in_child(as_nobody, public)
    assert kind == "UsageError"
    assert message == f"expert file {contents(4).path}: permission denied\n{CANNOT}"


def test_a_folder_that_cannot_be_made_is_an_error(public: Path) -> None:
    contents(4).path.parent.parent.mkdir()
    contents(4).path.parent.parent.chmod(0o555)
    try:
        kind, message = in_child(as_nobody, public)
    finally:
        contents(4).path.parent.mkdir()
    assert kind == "UsageError"
    assert message == f"expert file {contents(4).path}: permission denied\n{CANNOT}"


def test_a_file_that_cannot_be_read_is_an_error(public: Path) -> None:
    on_disk(4)
    contents(4).path.chmod(0o000)
    kind, message = in_child(as_nobody, public)
    assert kind == "MoeprofError"
    assert message.startswith(f"expert file {contents(4).path}: permission denied\nMake it readable")


def test_a_file_in_the_place_of_the_folder_is_an_error(disk: Path) -> None:
    (disk / "moeprof").write_text("")
    error = refused(backing, contents(4), unasked)
    assert isinstance(error, UsageError)
    assert error.what.endswith(": not a directory")


def stuck(sender: Connection, cache: Path) -> None:
    """Writes five of eight entries and waits for weights that do not come."""
    os.environ["XDG_CACHE_HOME"] = str(cache)

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        if (layer, expert) == KEYS[5]:
            sender.send("stuck")
            time.sleep(60)
        filling(4)(layer, expert, into)

    backing(contents(4), fill)


def test_half_a_file_of_a_killed_process_is_never_taken_for_a_whole_one(disk: Path) -> None:
    receiver, sender = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=stuck, args=(sender, disk))
    child.start()
    assert receiver.recv() == "stuck"
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    path = contents(4).path
    assert child.exitcode == -signal.SIGKILL
    assert leftovers() == [half_written(path).name]
    assert all_right(on_disk(4))
    assert leftovers() == [path.name]


def noted(sender: Connection, cache: Path) -> None:
    """Writes, if it must, what it notes, and reads all."""
    os.environ["XDG_CACHE_HOME"] = str(cache)

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        sender.send((layer, expert))
        time.sleep(0.01)
        filling(4)(layer, expert, into)

    sender.send(all_right(backing(contents(4), fill)))


def test_processes_that_want_the_same_file_at_the_same_time_write_it_once(disk: Path) -> None:
    pipes = [CHILDREN.Pipe(duplex=False) for _ in range(3)]
    children = [CHILDREN.Process(target=noted, args=(sender, disk)) for _, sender in pipes]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    notes = []
    for receiver, _ in pipes:
        while receiver.poll():
            notes.append(receiver.recv())
    assert sorted(map(str, notes)) == sorted(map(str, [*KEYS, True, True, True]))
    assert leftovers() == [contents(4).path.name]
