"""From recorded cross-entropies and translations to perplexity, bits per byte and chrF."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import SCORES, TRANSLATIONS
from moeprof.records.run.run import Run

Pair = tuple[str, str]
"""A translation and its reference."""

TranslationRow = Mapping[str, Any]
"""A row of the raw table `translations`."""

MAX_NATS = math.log(1e308)
"""Largest mean cross-entropy whose perplexity is a number."""


def score_rows(run: Run) -> Iterator[Samples]:
    """`perplexity`, up to 1e308, and `bits_per_byte` of every variant and domain, and over all domains."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in run.raw(SCORES).to_pylist():
        sums = found.setdefault((row["phase"], row["variant"]), {}).setdefault(row["domain"], [0.0, 0, 0])
        for index, name in enumerate(("nats", "tokens", "bytes")):
            sums[index] += row[name]
    for (phase, variant), domains in found.items():
        whole = [sum(parts) for parts in zip(*domains.values(), strict=True)]
        for domain, (nats, tokens, num_bytes) in {**domains, "": whole}.items():
            if tokens and math.isfinite(nats):  # outputs that are not finite have no quality
                at = address(run, phase, variant, domain)
                forced = run.record.ran.forced
                if nats / tokens < MAX_NATS:
                    yield MetricRow("perplexity", math.exp(nats / tokens), **at, forced=forced), []
                if num_bytes:  # it is not known of token ids without a tokenizer
                    yield MetricRow("bits_per_byte", nats / math.log(2) / num_bytes, **at, forced=forced), []


def translation_rows(run: Run) -> Iterator[Samples]:
    """`chrf` of every variant and language, and over all languages."""
    found: dict[tuple[str, str], dict[str, list[TranslationRow]]] = {}
    for row in run.raw(TRANSLATIONS).to_pylist():
        domains = found.setdefault((row["phase"], row["variant"]), {})
        domains.setdefault(row["domain"], []).append(row)
    for (phase, variant), languages in found.items():
        yield from chrf_rows(run, phase, variant, {language: whole_sentences(rows) for language, rows in languages.items()})


def whole_sentences(rows: Iterable[TranslationRow]) -> list[Pair]:
    """Each sentence of one language, with the translations of its pieces joined in order."""
    sentences: dict[int, list[TranslationRow]] = {}
    for number, row in enumerate(rows):
        whole = row["sentence"] is None  # in runs of older versions
        sentences.setdefault(-1 - number if whole else row["sentence"], []).append(row)
    for pieces in sentences.values():
        pieces.sort(key=lambda row: row["sequence"] or 0)
    return [(" ".join(row["translation"] for row in pieces), pieces[0]["reference"]) for pieces in sentences.values()]


def chrf_rows(run: Run, phase: str, variant: str, languages: Mapping[str, Sequence[Pair]]) -> Iterator[Samples]:
    """The rows of one variant."""
    everything = [pair for pairs in languages.values() for pair in pairs]
    for language, pairs in {**languages, "": everything}.items():
        yield MetricRow("chrf", chrf(pairs), **address(run, phase, variant, language), forced=run.record.ran.forced), []


def chrf(pairs: Sequence[Pair]) -> float:
    """Corpus chrF2, 0 to 100, of (translation, reference) pairs."""
    import sacrebleu

    return float(
        sacrebleu.corpus_chrf([translation for translation, _ in pairs], [[reference for _, reference in pairs]]).score
    )


def address(run: Run, phase: str, variant: str, domain: str) -> Address:
    """The cells of a row about quality."""
    return {"workload": run.record.workload, "phase": phase, "variant": variant, "domain": domain}
