"""The documents of a source distribution: files `docs/**/*.txt` of its archive, as prose, in two parts."""

import tarfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import PurePosixPath

from moeprof.workloads.corpora import Split
from moeprof.workloads.corpora.randomness import seed_of
from moeprof.workloads.documentation.prose import paragraphs
from moeprof.workloads.documentation.source import Distribution, archive, known_distribution

HELDOUT_SHARE = 20
"""About one document in HELDOUT_SHARE is held out."""

MAX_MEMBERS, MAX_DOCUMENT = 20_000, 2**20
"""Members of an archive, and bytes of a document, that are read at most."""


def documentation(requirement: str, split: Split) -> list[str]:
    """The prose of a release's documentation, one text per file, in the order of the files' names.

    UsageError for an unknown release, MoeprofError if it is not in the cache and cannot be downloaded.
    """
    return [text for name, text in prose_documents(known_distribution(requirement)) if split_of(name) == split]


@cache
def prose_documents(distribution: Distribution) -> list[tuple[str, str]]:
    """Name and prose of every document, without paragraphs that an earlier document has: none is in both parts."""
    seen: set[str] = set()
    found = []
    for name, source in sorted(documents(archive(distribution))):
        new = [paragraph for paragraph in dict.fromkeys(paragraphs(source)) if paragraph not in seen]
        seen.update(new)
        if new:
            found.append((name, "\n".join(new) + "\n"))
    return found


def documents(content: bytes) -> Iterator[tuple[str, str]]:
    """Path below `docs` and text of every document of a .tar.gz archive, which is read in memory."""
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as tar:
        for number, member in enumerate(tar):
            if number == MAX_MEMBERS:
                return
            name = below_docs(member.name)
            if name and member.isreg() and member.size <= MAX_DOCUMENT and (file := tar.extractfile(member)):
                yield name, file.read(MAX_DOCUMENT).decode("utf-8", errors="ignore")


def below_docs(name: str) -> str:
    """The path of a text below the folder `docs` of the release; empty for any other member."""
    path = PurePosixPath(name)
    inside = len(path.parts) > 2 and path.parts[1] == "docs" and not path.is_absolute() and ".." not in path.parts
    return "/".join(path.parts[2:]) if inside and path.suffix == ".txt" else ""


def split_of(name: str) -> Split:
    """The part that a document belongs to, by its name alone."""
    return "train" if seed_of("documentation", name) % HELDOUT_SHARE else "heldout"
