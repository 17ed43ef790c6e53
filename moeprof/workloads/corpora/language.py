"""Text for the language-modelling workload: domains of our own making, to any length, the same bytes everywhere."""

from collections.abc import Callable

from moeprof.workloads.corpora.domains.code import code_document
from moeprof.workloads.corpora.domains.prose import prose_document
from moeprof.workloads.corpora.domains.records import record_document
from moeprof.workloads.corpora.randomness import RandomStream, Split, seed_of

WRITERS: dict[str, Callable[[RandomStream], str]] = {"prose": prose_document, "code": code_document, "records": record_document}
LM_DOMAINS: tuple[str, ...] = tuple(WRITERS)
BETWEEN_DOCUMENTS = "\n\n"


def lm_text(domain: str, split: Split, num_bytes: int) -> str:
    """The first `num_bytes` ASCII bytes of the domain's endless train or held-out text; KeyError for an unknown domain.

    Document n depends on (domain, split, n) alone, so that a longer text begins with every shorter one.
    """
    write = WRITERS[domain]
    documents: list[str] = []
    length = 0
    while length < num_bytes:
        document = write(RandomStream(seed_of("lm", domain, split, len(documents)))) + BETWEEN_DOCUMENTS
        documents.append(document)
        length += len(document)
    return "".join(documents)[:num_bytes]
