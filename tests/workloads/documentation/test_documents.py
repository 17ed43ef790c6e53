"""Documents are the texts below `docs`, each in one part, and no paragraph is in two documents."""

from pathlib import Path

import pytest

from moeprof.workloads.documentation import documentation
from moeprof.workloads.documentation.documents import MAX_DOCUMENT, documents, split_of

from .releases import packed, stored_guide


def test_only_texts_below_docs_are_read() -> None:
    members = {
        "guide-1.0/docs/a.txt": "One.",
        "guide-1.0/docs/deep/er/b.txt": "Two.",
        "guide-1.0/docs/c.py": "code",
        "guide-1.0/setup.txt": "no",
        "guide-1.0/tests/docs/d.txt": "no",
        "guide-1.0/docs/../../e.txt": "no",
        "/docs/f.txt": "no",
        "guide-1.0/docs/long.txt": "x" * (MAX_DOCUMENT + 1),
    }
    assert list(documents(packed(members))) == [("a.txt", "One."), ("deep/er/b.txt", "Two.")]


def test_both_parts_together_hold_every_paragraph_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {f"page{number:02d}.txt": f"Page {number} begins here.\n\nEvery page ends alike.\n" for number in range(60)}
    stored_guide(tmp_path, monkeypatch, pages)
    parts = {split: "".join(documentation("guide==1.0", split)).splitlines() for split in ("train", "heldout")}
    expected = {f"Page {number} begins here." for number in range(60)} | {"Every page ends alike."}
    assert sorted(parts["train"] + parts["heldout"]) == sorted(expected)
    held = [name for name in pages if split_of(name) == "heldout"]
    assert 1 <= len(held) <= 10
    assert parts["heldout"][0] == f"Page {int(held[0][4:6])} begins here."
