"""Text for the language-modelling workload: domains of our own making, to any length, the same bytes everywhere."""

from collections.abc import Callable, Iterator
from itertools import count

from moeprof.workloads.corpora.domains.code import code_document
from moeprof.workloads.corpora.domains.prose import prose_document
from moeprof.workloads.corpora.domains.records import record_document
from moeprof.workloads.corpora.randomness import RandomStream, Split, seed_of

WRITERS: dict[str, Callable[[RandomStream], str]] = {"prose": prose_document, "code": code_document, "records": record_document}
LM_DOMAINS: tuple[str, ...] = tuple(WRITERS)
BETWEEN_DOCUMENTS = "\n\n"


def lm_documents(domain: str, split: Split) -> Iterator[str]:
    """The endless documents of the domain's train or held-out text, each with what separates it from the next.

    Document n depends on (domain, split, n) alone. KeyError for an unknown domain.
    """
    write = WRITERS[domain]
    for number in count():
        yield write(RandomStream(seed_of("lm", domain, split, number))) + BETWEEN_DOCUMENTS


def lm_text(domain: str, split: Split, num_bytes: int) -> str:
    """The first `num_bytes` ASCII bytes of the domain's endless train or held-out text; KeyError for an unknown domain.

    A longer text begins with every shorter one.
    """
    documents: list[str] = []
    length = 0
    written = lm_documents(domain, split)
    while length < num_bytes:
        documents.append(next(written))
        length += len(documents[-1])
    return "".join(documents)[:num_bytes]
