"""The user's text is read as data, and everything wrong with it is said in two lines."""

import gzip
import hashlib
import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError, escaped
from moeprof.records.system.inputs import BLOCK_BYTES, MAX_BYTES, InputFile
from moeprof.workloads import text as text_module
from moeprof.workloads.text import TextFile, parse_data_option, read_documents, read_pairs
from tests.records.system.pipes import fed


def write(path: Path, content: str | bytes) -> Path:
    """A file with this content, compressed where its name ends with `.gz`."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def sha(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def jsonl(*items: object) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def fault(call: object, *arguments: object) -> tuple[str, str]:
    """What a UsageError says, and the remedy."""
    assert callable(call)
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    assert str(caught.value).count("\n") == 1
    return caught.value.what, caught.value.remedy


# Documents


def test_a_text_file_is_one_document_hashed_as_sha256sum_hashes_it(tmp_path: Path) -> None:
    text = read_documents("wiki", write(tmp_path / "a.txt", "one\ntwo\n"))
    assert text.name == "wiki"
    assert text.documents == ["one\ntwo\n"]
    assert text.sha256 == "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.TXT", "a.gz", "a.md", "a", "a.md.gz"])
def test_a_named_file_that_is_no_jsonl_is_plain_text(tmp_path: Path, name: str) -> None:
    text = read_documents("x", write(tmp_path / name, '{"text": 1}'))
    assert (text.documents, text.sha256) == (['{"text": 1}'], sha('{"text": 1}'))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.JSON.GZ"])
def test_a_jsonl_file_has_a_document_per_line(tmp_path: Path, name: str) -> None:
    content = jsonl({"text": "one"}, {"text": "  "}, {"text": "two\nlines", "id": 7}) + "\n   \n"
    text = read_documents("x", write(tmp_path / name, content))
    assert text.documents == ["one", "two\nlines"]
    assert text.sha256 == sha(content)


def test_a_folder_is_read_by_relative_path_and_other_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "B")
    write(tmp_path / "sub" / "c.txt.gz", "C")
    write(tmp_path / "a.jsonl", jsonl({"text": "A1"}, {"text": "A2"}))
    write(tmp_path / "sub" / "image.png", b"\x89PNG\xff")
    write(tmp_path / "notes.md", "no")
    text = read_documents("x", tmp_path)
    assert text.documents == ["A1", "A2", "B", "C"]
    assert text.sha256 == sha('{"text": "A1"}\n{"text": "A2"}\nBC')


def test_no_link_leads_out_of_a_folder(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside" / "secret.txt", "secret")
    folder = write(tmp_path / "folder" / "own.txt", "own").parent
    (folder / "file.txt").symlink_to(secret)
    (folder / "below").symlink_to(secret.parent)
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.txt").symlink_to(tmp_path / "nothing.txt")
    (folder / "twin.txt").symlink_to(folder / "own.txt")
    assert read_documents("x", folder).documents == ["own", "own"]


def test_a_folder_given_by_a_link_is_read(tmp_path: Path) -> None:
    write(tmp_path / "folder" / "own.txt", "own")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    assert read_documents("x", tmp_path / "link").documents == ["own"]


def test_the_byte_order_mark_goes_and_windows_line_ends_become_line_feeds(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbfone\r\ntwo\rthree\r\n\xef\xbb\xbf"
    text = read_documents("x", write(tmp_path / "a.txt", raw))
    assert text.documents == ["one\ntwo\rthree\n\ufeff"]
    assert text.sha256 == sha(raw)


@pytest.mark.parametrize("shift", range(-3, 4))
def test_characters_and_line_ends_survive_the_border_between_two_blocks(tmp_path: Path, shift: int) -> None:
    head = "x" * (BLOCK_BYTES + shift)
    content = f"{head}\r\n{chr(0x1F600)}\r\r\nend\r"
    text = read_documents("x", write(tmp_path / "a.txt", content))
    assert text.documents == [f"{head}\n{chr(0x1F600)}\r\nend\r"]


def test_a_bound_cuts_the_last_document_and_the_hash_is_then_that_of_the_text_used(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "12345")
    write(tmp_path / "b.txt", "67890")
    text = read_documents("x", tmp_path, max_chars=7)
    assert text.documents == ["12345", "67"]
    assert text.sha256 == sha("12345\x0067\x00")


@pytest.mark.parametrize("bound", [10, 11, None])
def test_a_bound_that_cuts_nothing_changes_nothing(tmp_path: Path, bound: int | None) -> None:
    write(tmp_path / "a.txt", "12345")
    write(tmp_path / "b.txt", "67890")
    text = read_documents("x", tmp_path, max_chars=bound)
    assert (text.documents, text.sha256) == (["12345", "67890"], sha("1234567890"))


def test_a_bounded_read_stops_early_in_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, str(2 * BLOCK_BYTES))
    path = write(tmp_path / "a", "text" * BLOCK_BYTES)
    assert read_documents("x", path, max_chars=9).documents == ["texttextt"]
    what, remedy = fault(read_documents, "x", path)
    assert what == f"data x: {path}: more than 2 MiB"
    assert remedy.startswith("Set --max-bytes")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_without_an_end_is_refused_at_the_bound(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, str(2 * BLOCK_BYTES))
    path = write(tmp_path / name, '{"text": "' + "x" * (2 * BLOCK_BYTES))
    assert fault(read_documents, "x", path)[0] == f"data x: {path}: more than 2 MiB"


def test_a_device_is_no_text() -> None:
    assert fault(read_documents, "x", Path("/dev/zero"), 9)[0] == "data x: /dev/zero: a device, not a file"


def test_a_pipe_is_read_once_for_every_attempt(tmp_path: Path) -> None:
    with fed(tmp_path / "pipe", b"one text\r\n") as pipe:
        file = InputFile(pipe)
        assert [read_documents("x", file, bound).documents for bound in (3, 8, 99)] == [["one"], ["one text"], ["one text\n"]]


def test_lines_of_json_are_recognised_in_a_pipe_without_a_name(tmp_path: Path) -> None:
    with fed(tmp_path / "pipe", jsonl({"text": "one"}, {"text": "two"}).encode()) as pipe:
        assert read_documents("x", InputFile(pipe)).documents == ["one", "two"]
    with fed(tmp_path / "other", jsonl({"translation": {"en": "one", "ne": "eka"}}).encode()) as pipe:
        assert read_pairs("x", str(pipe)).pairs == [("one", "eka")]
    with fed(tmp_path / "plain", b"[1]\n") as pipe:
        assert read_documents("x", InputFile(pipe)).documents == ["[1]\n"]


def test_several_ranks_do_not_share_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    os.mkfifo(tmp_path / "pipe")
    assert fault(read_documents, "x", tmp_path / "pipe")[0].endswith("a pipe, which several processes cannot each read")


def test_a_bounded_read_does_not_see_what_is_wrong_behind_the_bound(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", jsonl({"text": "12345"}) + "not json\n")
    assert read_documents("x", tmp_path / "a.jsonl", max_chars=4).documents == ["1234"]


@given(st.lists(st.text(min_size=1, max_size=9).filter(str.strip), min_size=1, max_size=6), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_the_bound_keeps_a_prefix_of_the_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str], bound: int) -> None:
    path = write(tmp_path_factory.mktemp("text") / "a.jsonl", jsonl(*({"text": text} for text in texts)))
    whole = "".join(texts)
    assume(whole[:bound].strip())
    documents = read_documents("x", path, bound).documents
    assert whole.startswith("".join(documents))
    assert whole[:bound].strip() == "".join(documents).strip()


def test_a_lone_surrogate_in_json_is_kept_and_hashed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a\\ud800b"}\n')
    assert read_documents("x", path, max_chars=2).documents == ["a\ud800"]


def test_the_shared_text_is_read_whole(shared_data: Path) -> None:
    wiki = read_documents("wikipedia", shared_data / "lm" / "wikitext2.test.txt")
    assert wiki.sha256 == "411d72fd79c730ae80b325e61b1db0351a7a8033f31fc5584de6ff65452b0c0c"
    assert [document.count("\n") for document in wiki.documents] == [2099]
    code = read_documents("github", shared_data / "lm" / "olmoe_github_code.txt.gz")
    assert code.sha256 == "1a8e4b8eb4d4c67b994e1b74ddbd0b93d84fe3572eb32ed86b9c56185c7f6872"
    assert [document.count("\n") for document in code.documents] == [42573]


# What is wrong with documents


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    what, remedy = fault(read_documents, "wiki", tmp_path / "no.txt")
    assert what == f"data wiki: {tmp_path}/no.txt: no such file or directory"
    assert remedy == "Give a file that exists and is complete, as text in UTF-8 (iconv -t UTF-8 converts it)."


@pytest.mark.parametrize("name", ["a\0b.txt", "a" * 300 + ".txt"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    assert fault(read_documents, "x", tmp_path / name)[0].startswith(f"data x: {escaped(str(tmp_path / name))}: ")


@pytest.mark.parametrize("content", ["", " \n\t\r\n", "\ufeff", "\ufeff \n"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_an_empty_file_holds_no_text(tmp_path: Path, name: str, content: str) -> None:
    what, _ = fault(read_documents, "x", write(tmp_path / name, content))
    assert what == f"data x: {tmp_path}/{name}: holds no text, or only white space"


def test_an_empty_file_with_the_name_of_a_gzip_file_holds_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(b"")
    assert fault(read_documents, "x", tmp_path / "a.txt.gz")[0].endswith("holds no text, or only white space")


def test_the_line_and_column_of_a_wrong_byte_count_over_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeff".encode() + b"x" * BLOCK_BYTES + "\r\n\u00e9y".encode() + b"\xff")
    assert fault(read_documents, "x", path)[0] == f"data x: {path}: line 2, column 3: byte 0xff is not UTF-8"


@pytest.mark.parametrize("padding", [0, 5, BLOCK_BYTES - 2, BLOCK_BYTES, 3 * BLOCK_BYTES + 1])
@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98"])
def test_the_byte_that_is_not_utf8_is_named(tmp_path: Path, padding: int, wrong: bytes) -> None:
    what, remedy = fault(read_documents, "x", write(tmp_path / "a.txt", b"x" * padding + wrong))
    assert what == f"data x: {tmp_path}/a.txt: line 1, column {padding + 1}: byte 0x{wrong[0]:02x} is not UTF-8"
    assert "iconv" in remedy


def test_text_with_a_mark_of_utf16_is_read(tmp_path: Path) -> None:
    assert read_documents("x", write(tmp_path / "a.txt", "text\r\n".encode("utf-16"))).documents == ["text\n"]


def test_an_archive_is_recognised_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "packed.txt").write_bytes(gzip.compress(b"text"))
    (tmp_path / "plain.txt.gz").write_bytes(b"text")
    for path in (tmp_path / "packed.txt", tmp_path / "plain.txt.gz"):
        assert read_documents("x", path).documents == ["text"]


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"some text " * 1000)
    (tmp_path / "a.txt.gz").write_bytes(whole[:-9])
    assert fault(read_documents, "x", tmp_path / "a.txt.gz")[0] == f"data x: {tmp_path}/a.txt.gz: truncated gzip file"


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text", mtime=0)[:-8] + bytes(8))
    assert "damaged gzip file" in fault(read_documents, "x", tmp_path / "a.txt.gz")[0]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "truncated JSON: it ends at line 3, column 1, inside a value"),
        ("[" * 100_000, "line 3: nested too deeply"),
        ('{"text": ' + "9" * 5000 + "}", "line 3: a number has more than 4,300 digits"),
        ('{"txt": "a"}', "line 3: no field 'text'"),
        ('["text"]', "line 3: no field 'text'"),
        ('{"text": 5}', "line 3: field 'text' is not a string"),
        ('{"text": null}', "line 3: field 'text' is not a string"),
    ],
)
def test_a_wrong_line_of_json_is_named_by_its_number(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "good"}\n\n' + line + "\n")
    assert fault(read_documents, "x", path)[0].startswith(f"data x: {path}: {what}")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "notes.md", "no")
    what, remedy = fault(read_documents, "x", tmp_path)
    assert what == f"data x: {tmp_path}: the folder holds no .txt, .jsonl, .gz or .zst file that can be read"
    assert remedy == "Give a .txt or .jsonl file (also .gz and .zst), or a folder of them."


def test_the_file_of_a_folder_that_is_wrong_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "fine")
    write(tmp_path / "b.txt", b"\xff")
    assert fault(read_documents, "x", tmp_path)[0] == f"data x: {tmp_path}/b.txt: line 1, column 1: byte 0xff is not UTF-8"


# Lines


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=5), max_size=8))
@settings(max_examples=60, deadline=None)
def test_lines_end_at_line_feeds_only(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    lines = [line.replace("\ufeff", "") for line in lines]
    path = write(tmp_path_factory.mktemp("lines") / "a", "".join(line + "\r\n" for line in lines))
    assert list(TextFile("x", InputFile(path)).lines()) == lines


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    assert list(TextFile("x", InputFile(write(tmp_path / "a", "one\u2028still one\n\ntwo"))).lines()) == [
        "one\u2028still one",
        "",
        "two",
    ]


def test_a_line_longer_than_many_blocks_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "x" * (4 * BLOCK_BYTES + 1) + "\ny\n")
    assert [len(line) for line in TextFile("x", InputFile(path)).lines()] == [4 * BLOCK_BYTES + 1, 1]


# Pairs


@pytest.mark.parametrize(("source", "target"), [("a.ne", "a.en"), ("a.ne.gz", "a.en"), ("a.ne", "a.en.gz")])
def test_two_aligned_files_give_pairs(tmp_path: Path, source: str, target: str) -> None:
    write(tmp_path / source, "eka\r\n\r\ntina\r\n")
    write(tmp_path / target, "\ufeffone\n\nthree")
    text = read_pairs("ne-en", [str(tmp_path / source), str(tmp_path / target)])
    assert (text.name, text.pairs) == ("ne-en", [("eka", "one"), ("tina", "three")])
    assert text.sha256 == sha("eka\0one\0tina\0three\0")


def test_pairs_with_an_empty_side_are_left_out_and_only_half_empty_ones_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a", "1\n\n3\n \n5\n")
    write(tmp_path / "b", "one\n\n \nfour\nfive\n")
    with caplog.at_level(logging.WARNING):
        assert read_pairs("x", [str(tmp_path / "a"), str(tmp_path / "b")]).pairs == [("1", "one"), ("5", "five")]
    assert caplog.messages == ["data x: pair 3 has one empty side; such pairs are left out"]


def test_a_bound_on_pairs_counts_pairs_that_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a", "1\n\n3\n4\n")
    write(tmp_path / "b", "one\n\nthree\nfour\n")
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert read_pairs("x", paths, max_pairs=2).pairs == [("1", "one"), ("3", "three")]
    assert read_pairs("x", paths, max_pairs=9).sha256 == read_pairs("x", paths).sha256 == sha("1\0one\x003\0three\x004\0four\0")


@pytest.mark.parametrize("bound", [None, 1])
def test_unequal_line_counts_are_told_whatever_the_bound(tmp_path: Path, bound: int | None) -> None:
    source, target = write(tmp_path / "a", "1\n2\n3\n"), write(tmp_path / "b", "one\ntwo\nthree\n\nfive")
    what, _ = fault(read_pairs, "x", [str(source), str(target)], bound)
    assert what == f"data x: {source} has 3 lines, {target} has 5"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize(("label", "pair"), [("ne-en", ("eka", "one")), ("en-ne", ("one", "eka")), ("flores", ("one", "eka"))])
def test_the_name_orders_the_languages_of_json_else_the_first_line_does(
    tmp_path: Path, name: str, label: str, pair: tuple[str, str]
) -> None:
    lines = [{"translation": {"en": "one", "ne": "eka"}}, {"translation": {"ne": "eka", "en": "one"}}]
    text = read_pairs(label, str(write(tmp_path / name, jsonl(*lines))))
    assert text.pairs == [pair, pair]
    assert read_pairs(label, [str(tmp_path / name)]) == text


def test_codes_with_hyphens_are_ordered_by_the_name_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl({"translation": {"en": "one", "zh-Hans": "yi"}}))
    assert read_pairs("zh-Hans-en", str(path)).pairs == [("yi", "one")]


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ({"text": "a"}, "no field 'translation'"),
        ({"translation": {"en": "a"}}, "'translation' does not hold two languages as text"),
        ({"translation": {"en": "a", "fr": "b", "ja": "c"}}, "'translation' does not hold two languages as text"),
        ({"translation": {"en": "a", "fr": 3}}, "'translation' does not hold two languages as text"),
        ({"translation": ["a", "b"]}, "'translation' does not hold two languages as text"),
        ({"translation": {"en": "a", "ja": "b"}}, "languages en, ja after en, fr"),
    ],
)
def test_a_wrong_translation_is_named_by_its_line(tmp_path: Path, item: object, what: str) -> None:
    path = write(tmp_path / "a.jsonl", jsonl({"translation": {"en": "a", "fr": "b"}}, item))
    assert fault(read_pairs, "x", str(path))[0] == f"data x: {path}: line 2: {what}"


@pytest.mark.parametrize("paths", ["one.txt", ["one.txt"], [], ["a", "b", "c"]])
def test_what_is_neither_two_files_nor_jsonl_is_no_pair(paths: str | list[str]) -> None:
    what, remedy = fault(read_pairs, "x", paths)
    assert what.endswith("not a pair of languages")
    assert remedy.startswith("Give SOURCE,TARGET")


def test_a_folder_is_no_side_of_a_pair(tmp_path: Path) -> None:
    write(tmp_path / "a", "text\n")
    assert fault(read_pairs, "x", [str(tmp_path / "a"), str(tmp_path)])[0] == f"data x: {tmp_path}: is a directory"


def test_two_files_of_blank_lines_hold_no_pair(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "a", "\n \n")), str(write(tmp_path / "b", "\n\n"))]
    assert fault(read_pairs, "x", paths)[0] == f"data x: {tmp_path}/a: holds no sentence pair"


def test_a_file_of_documents_or_pairs_without_text_is_left_at_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "MAX_EMPTY", 3)
    empty, blank = json.dumps({"text": ""}) + "\n", write(tmp_path / "blank", "\n" * 4)
    filled = write(tmp_path / "filled.jsonl", (empty * 3 + json.dumps({"text": "one"}) + "\n") * 2)
    assert read_documents("x", filled).documents == ["one", "one"]
    sparse = write(tmp_path / "sparse", "\n\n\na\n" * 2)
    assert read_pairs("x", [str(sparse), str(sparse)]).pairs == [("a", "a"), ("a", "a")]
    assert fault(read_documents, "x", write(tmp_path / "empty.jsonl", empty * 4 + "no JSON"))[0].endswith(
        "empty.jsonl: line 4: more than 3 lines in a row hold no text"
    )
    assert fault(read_pairs, "x", [str(blank), str(blank)])[0] == "data x: more than 3 pairs in a row have an empty side"


def test_the_shared_sentences_are_a_thousand_pairs(shared_data: Path) -> None:
    paths = [str(shared_data / "mt" / f"devtest.ne-en.{side}") for side in ("ne", "en")]
    text = read_pairs("ne-en", paths)
    assert len(text.pairs) == 1000
    assert sum(len(target.encode()) + 1 for _, target in text.pairs) == 96_797
    assert sum(len(source.encode()) + 1 for source, _ in text.pairs) == 238_159


# --data


def test_the_data_option_names_one_path_for_language_modelling() -> None:
    assert parse_data_option("wikipedia=../a=b,c.txt", "lm") == ("wikipedia", "../a=b,c.txt")


def test_the_data_option_names_two_paths_or_one_for_translation() -> None:
    assert parse_data_option("ne-en=a.ne,a.en", "mt") == ("ne-en", ["a.ne", "a.en"])
    assert parse_data_option("ne-en=a.jsonl", "mt") == ("ne-en", "a.jsonl")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("wiki.txt", "wiki"),
        ("../texts/wiki.txt.gz", "wiki"),
        ("wiki.en.jsonl", "wiki.en"),
        ("wiki.GZ", "wiki"),
        ("texts/", "texts"),
        ("texts/.", "texts"),
        (".hidden", "_hidden"),
        ("/", "text"),
        ("a\x1bb.txt", "a_b"),
        ("a" * 70 + ".txt", "a" * 64),
    ],
)
def test_a_data_option_without_a_name_takes_the_stem_of_the_file(path: str, name: str) -> None:
    assert parse_data_option(path, "lm") == (name, path)


def test_a_pair_of_files_is_named_after_the_source() -> None:
    assert parse_data_option("d/devtest.ne-en.ne,d/devtest.ne-en.en", "mt")[0] == "devtest.ne-en"
    assert parse_data_option("d/ne-en.jsonl.gz", "mt") == ("ne-en", "d/ne-en.jsonl.gz")


def test_a_model_that_reads_sources_only_is_given_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse_data_option("ne-en=a.ne,a.en", "mt", plain=True)
    assert caught.value.what == "--data ne-en=a.ne,a.en: this encoder-decoder reads sources only"
    assert caught.value.remedy == "Give them alone: --data ne-en=a.ne"
    assert parse_data_option("ne-en=a.ne", "mt", plain=True) == ("ne-en", "a.ne")
    comma = write(tmp_path / "a,b.txt", "text")
    assert parse_data_option(f"x={comma}", "mt", plain=True) == ("x", str(comma))


@pytest.mark.parametrize("text", ["", "wiki=", "="])
def test_a_data_option_without_path_shows_the_form(text: str) -> None:
    what, remedy = fault(parse_data_option, text, "lm")
    assert what == f"--data {text}: not of the form [NAME=]PATH"
    assert remedy == "Example: --data wikipedia=wiki.txt.gz"


@pytest.mark.parametrize("text", ["x=a,", "x=,b", "x=a,b,c", "x=,", "x=", "a,", "a,b,c"])
def test_a_data_option_for_translation_has_one_or_two_paths(text: str) -> None:
    assert (
        fault(parse_data_option, text, "mt")[0] == f"--data {text}: not of the form [NAME=]SOURCE,TARGET (or [NAME=]FILE.jsonl)"
    )


@pytest.mark.parametrize("name", ["", "../x", "..", ".hidden", "-x", "a/b", "a\\b", "a\x1b[31m", "a\u2028b", "a" * 65])
def test_a_name_that_cannot_be_part_of_a_file_name_is_refused(name: str) -> None:
    assert fault(parse_data_option, f"{name}=a.txt", "lm")[0].endswith("is not a valid name")


def test_a_name_may_have_spaces_and_letters_of_any_script() -> None:
    assert parse_data_option("\u0928\u0947 news=a.txt", "lm") == ("\u0928\u0947 news", "a.txt")


def test_a_name_that_ends_in_a_line_feed_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a valid name"):
        parse_data_option("wiki\n=a.txt", "lm")
