"""Documents to fit on and documents to judge by: of the default text the train and the held-out text, of a file the first and the
last documents."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.workloads.calibration.documents import DocumentIds, documents_of
from moeprof.workloads.text import hash_of

HELD_OUT = 4
"""One token is held out for so many to fit on."""

FEW, PARTS = 10, 50
"""A text of fewer documents than FEW is divided into PARTS consecutive parts, which count as documents."""


@dataclass(frozen=True)
class Excerpt:
    """A sequence of tokens from one document, as the model reads it."""

    domain: str
    document: int
    """Number of the document among all different ones of its half: the same source in two languages is one."""
    tokens: list[int]


@dataclass(frozen=True)
class Half:
    """The documents of one half by domain, and the sequences that they are cut into."""

    documents: dict[str, list[DocumentIds]]
    excerpts: list[Excerpt]

    @property
    def num_documents(self) -> int:
        """Different documents of all domains."""
        return 1 + max(excerpt.document for excerpt in self.excerpts)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the token ids of every domain."""
        return {domain: hash_of(map(str, found)) for domain, found in self.documents.items()}


def halves(recipe: Recipe, max_tokens: int) -> tuple[Half, Half]:
    """Documents of at most `max_tokens` tokens per domain to fit on, and of a quarter as many to judge by; none is in both.

    UsageError if a text is too short to be divided.
    """
    source, held_out = documents_of(recipe), -(-max_tokens // HELD_OUT)
    fit: dict[str, list[DocumentIds]] = {}
    judge: dict[str, list[DocumentIds]] = {}
    for domain in source.domains:
        if recipe.data.files:
            known = upto(source.given(domain, max_tokens + held_out), max_tokens + held_out)
            fit[domain], judge[domain] = divided(domain, known)
        else:
            fit[domain] = upto(source.made(domain, "train", max_tokens), max_tokens)
            judge[domain] = upto(source.made(domain, "heldout", held_out), held_out)
    fitted = {tuple(document) for found in fit.values() for document in found}
    judge = {domain: [document for document in found if tuple(document) not in fitted] for domain, found in judge.items()}
    if repeated := [domain for domain, found in judge.items() if not found]:
        raise UsageError(f"data {repeated[0]}: every document to judge by is also one to fit on", "Give other text.")
    first, length = source.first, recipe.load.sequence_length
    return Half(fit, excerpts(fit, first, length)), Half(judge, excerpts(judge, first, length))


def upto(documents: Iterable[DocumentIds], max_tokens: int) -> list[DocumentIds]:
    """The first documents, until they have so many tokens; the last one is cut."""
    found: list[DocumentIds] = []
    left = max_tokens
    for document in documents:
        if document:
            found.append(document[:left])
            left -= len(found[-1])
        if left <= 0:
            break
    return found


def divided(domain: str, documents: list[DocumentIds]) -> tuple[list[DocumentIds], list[DocumentIds]]:
    """The first documents and the last ones, a fifth of all; UsageError if there are too few tokens."""
    if len(documents) < FEW:
        tokens = list(chain.from_iterable(documents))
        size = max(-(-len(tokens) // PARTS), 1)
        documents = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    if len(documents) < FEW:
        raise UsageError(f"data {domain}: too few tokens to fit on one part and judge by another", "Give more text.")
    cut = len(documents) - len(documents) // (HELD_OUT + 1)
    return documents[:cut], documents[cut:]


def excerpts(texts: dict[str, list[DocumentIds]], first: Sequence[int], length: int) -> list[Excerpt]:
    """Every document cut into sequences of at most `length` tokens, each with the ids before it that every text begins with."""
    found: list[Excerpt] = []
    numbers: dict[tuple[int, ...], int] = {}
    size = max(length - len(first), 1)
    for domain, documents in texts.items():
        for document in documents:
            number = numbers.setdefault(tuple(document), len(numbers))
            cuts = (document[start : start + size] for start in range(0, len(document), size))
            found += [Excerpt(domain, number, [*first, *tokens]) for tokens in cuts]
    return found
