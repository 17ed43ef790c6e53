"""Perplexity, bits per byte and chrF against other ways to compute them, and remarks on foreign text."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from moeprof.analysis.derive import derive
from moeprof.analysis.quality import chrf, score_rows, translation_rows
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.models.build import Model, build_model
from moeprof.records.metrics.row import RecordedRow, RowKey
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.raw_tables import SCORES, TRANSLATIONS
from moeprof.records.run.run import Run
from moeprof.reporters.sections.quality import perplexity_cell
from moeprof.studies.passes.quality import Score, hard_remark, measure_quality, num_bytes, texts
from moeprof.studies.services import Services
from moeprof.studies.train.checkpoint import origin_of, write_checkpoint
from moeprof.studies.train.study import train
from moeprof.workloads.episodes import DecodeEpisode, Episode
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import BOS, EOS, FIRST_BYTE, PAD, ByteTokenizer, WordTokenizer, make_tokenizer
from tests.records.run.runs import labelled, raw_run

from ..runs import services_of, spoil, studied, values
from ..train.lessons import Quiet, brief

Micro = Callable[[str], Path]


@pytest.fixture
def trained(micro: Micro, tmp_path: Path) -> Callable[..., Recipe]:
    """A micro recipe with the checkpoint of a brief training."""

    def make(workload: str, *overrides: str) -> Recipe:
        recipe, out = brief(micro, workload), tmp_path / "micro.safetensors"
        train(recipe, out, Quiet())
        return load_recipe(str(micro(workload)), (f"model.checkpoint={out}", *overrides))

    return make


@dataclass
class Measured:
    """What the pass alone left behind."""

    services: Services
    episodes: list[Episode]
    notes: list[str]

    @property
    def model(self) -> Model:
        return self.services.runner.select(STATIC)

    @property
    def values(self) -> dict[tuple[str, str], float]:
        """Values by metric and domain, of the metrics of quality; only the MoE variant has any."""
        rows = [row for row, _ in derive(Run(self.services.writer.path, self.services.writer.record)) if row.phase]
        assert {row.variant for row in rows} <= {"static"}
        return {(row.metric, row.domain): row.value for row in rows}


def measured(recipe: Recipe, out: Path, phase: str, meddle: Callable[[Episode], object] = id) -> Measured:
    """The pass alone, on settled episodes, with which `meddle` may do something first."""
    services, workload = services_of(recipe, out, (STATIC, DENSE)), make_workload(recipe)
    with torch.inference_mode():
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(services.runner.select(STATIC))
            meddle(episode)
        notes = list(measure_quality(services, phase, episodes).notes)
    return Measured(services, episodes, notes)


def test_perplexity_and_bits_per_byte_are_those_of_a_token_by_token_count(
    trained: Callable[..., Recipe], tmp_path: Path
) -> None:
    done = measured(trained("lm"), tmp_path / "run", "score")
    values, model, episodes = done.values, done.model, done.episodes
    everything: list[float] = []
    for domain in ("prose", "code", "records"):
        nats = []
        for episode in episodes:
            if episode.domain != domain:
                continue
            tokens_BL = episode.batch.tokens_BL  # type: ignore[attr-defined]
            with torch.inference_mode():
                logits_BLV = episode.ready(model)().double()
            for row, logits_LV in zip(tokens_BL, logits_BLV, strict=True):
                nats += [
                    float(before_V.exp().sum().log() - before_V[token])
                    for before_V, token in zip(logits_LV[:-1], row[1:], strict=True)
                    if token not in (PAD, BOS, EOS)
                ]
        assert len(nats) == 2 * 2 * 11
        assert values["perplexity", domain] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-9)
        assert values["bits_per_byte", domain] == pytest.approx(sum(nats) / len(nats) / math.log(2), rel=1e-9)
        everything += nats
    assert values["bits_per_byte", ""] == pytest.approx(sum(everything) / len(everything) / math.log(2), rel=1e-9)


def test_bytes_of_words_count_the_blanks_between_them() -> None:
    tokenizer = WordTokenizer(["the", "river"], ["solvan"], 300)
    for text in ("the river", "the  river", "the Fluß the", "x", "the river the river"):
        assert num_bytes([BOS, *tokenizer.encode(text), EOS, PAD], tokenizer) == len(text.encode())
    assert num_bytes(ByteTokenizer().encode("Fluß"), ByteTokenizer()) == 5
    assert num_bytes([FIRST_BYTE + 0xC3], ByteTokenizer()) == 1


def plain_chrf(pairs: list[tuple[str, str]], order: int = 6, beta: float = 2.0) -> float:
    """chrF of Popović 2015 over a corpus: n-grams of characters without blanks, F of the mean precision and mean recall."""
    precisions, recalls = [], []
    for length in range(1, order + 1):
        hits = ours = theirs = 0
        for translation, reference in pairs:
            grams = [
                Counter(text[at : at + length] for at in range(len(text) - length + 1))
                for text in (translation.replace(" ", ""), reference.replace(" ", ""))
            ]
            hits += (grams[0] & grams[1]).total()
            ours, theirs = ours + grams[0].total(), theirs + grams[1].total()
        if ours and theirs:
            precisions.append(hits / ours)
            recalls.append(hits / theirs)
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    both = beta**2 * precision + recall
    return 100 * (1 + beta**2) * precision * recall / both if both else 0.0


def test_chrf_is_that_of_the_paper() -> None:
    pairs = [
        ("tu mal musti lar dela", "tu mal musti lar dela di pulo"),
        ("dukor kukok trek", "dukor trek ulm va"),
        ("ane owe tinyo geu", "nayo ane ye lenya"),
    ]
    assert chrf(pairs) == pytest.approx(plain_chrf(pairs), abs=1e-6)
    assert 20 < chrf(pairs) < 90
    assert chrf([(reference, reference) for _, reference in pairs]) == pytest.approx(100)


def references(episode: DecodeEpisode) -> list[str]:
    return [source.reference for source in episode.sources]


def test_chrf_by_language_is_that_of_the_greedy_translations(trained: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = trained("mt", "load.sequence_length=32")
    tokenizer = make_tokenizer("words", recipe.model.vocab_size)

    def half_right(episode: Episode) -> None:
        """As if the model had begun every other sentence well."""
        assert isinstance(episode, DecodeEpisode)
        rows = [tokenizer.encode(line)[:3] if row % 2 else [] for row, line in enumerate(references(episode))]
        padded = [[FIRST_BYTE, *row, *[PAD] * (3 - len(row))] for row in rows]
        episode.tokens_NB = list(torch.tensor(padded).t())

    done = measured(recipe, tmp_path / "run", "decode", half_right)
    values, episodes = done.values, done.episodes
    everything = []
    for language in ("solvan", "dorvek", "imbari"):
        pairs = []
        for episode in episodes:
            assert isinstance(episode, DecodeEpisode)
            if episode.domain == language:
                pairs += list(zip(texts(episode, tokenizer), references(episode), strict=True))
        assert len(pairs) == 6
        assert values["chrf", language] == pytest.approx(plain_chrf(pairs), abs=1e-6)
        everything += pairs
    assert values["chrf", ""] > 1
    assert values["chrf", ""] == pytest.approx(plain_chrf(everything), abs=1e-6)


def test_translations_of_pieces_are_joined_before_they_are_compared(tmp_path: Path) -> None:
    """Of two ranks, which record the pieces of one sentence in different batches; the last row is of an older version."""
    rows = [
        {"rank": 0, "sequence": 0, "sentence": 0, "translation": "tu mal", "reference": "tu mal musti lar"},
        {"rank": 0, "sequence": 3, "sentence": 1, "translation": "kukok", "reference": "dukor trek ulm va"},
        {"rank": 1, "sequence": 1, "sentence": 0, "translation": "musti", "reference": "tu mal musti lar"},
        {"rank": 1, "sequence": 2, "sentence": 1, "translation": "dukor trek", "reference": "dukor trek ulm va"},
        {"rank": 0, "sequence": None, "sentence": None, "translation": "nayo ane", "reference": "nayo ane ye"},
    ]
    cells = {"phase": "decode", "variant": "static", "domain": "ne-en"}
    run = raw_run(tmp_path / "run", {TRANSLATIONS: [cells | row for row in rows]}, variants=labelled(STATIC))
    whole = [
        ("tu mal musti", "tu mal musti lar"),
        ("dukor trek kukok", "dukor trek ulm va"),
        ("nayo ane", "nayo ane ye"),
    ]
    found = {row.domain: row.value for row, _ in translation_rows(run)}
    assert found == {"ne-en": pytest.approx(plain_chrf(whole)), "": pytest.approx(plain_chrf(whole))}
    assert plain_chrf(whole) > plain_chrf([(row["translation"], row["reference"]) for row in rows]) + 5  # type: ignore[misc]


def test_the_translation_of_a_split_sentence_is_compared_with_its_whole_reference(
    trained: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "source").write_text("the river. the sea\nthe river the sea the river the sea the river\nthe sea\n")
    (tmp_path / "target").write_text("tu mal musti lar\ndukor trek ulm va\nnayo ane ye lenya\n")
    files = f'data.files={{a-b=["{tmp_path / "source"}", "{tmp_path / "target"}"]}}'
    done = measured(trained("mt", files, "load.batch_size=1", "load.batches=20"), tmp_path / "run", "decode")
    sentences = Run(done.services.writer.path, done.services.writer.record).raw(TRANSLATIONS).to_pylist()
    tokenizer, whole = make_tokenizer("words", done.services.recipe.model.vocab_size), {}
    for episode in done.episodes:
        assert isinstance(episode, DecodeEpisode)
        (translation,), (source,) = texts(episode, tokenizer), episode.sources
        whole[source.reference] = f"{whole.get(source.reference, '')} {translation}"
    assert len(sentences) == len(done.episodes) > len(whole) == 3
    assert done.values["chrf", "a-b"] == pytest.approx(plain_chrf([(mine, given) for given, mine in whole.items()]), abs=1e-6)


def test_references_are_the_targets_of_the_sources(micro: Micro) -> None:
    from moeprof.workloads.corpora import mt_pairs
    from moeprof.workloads.translation import Translation

    workload = make_workload(load_recipe(str(micro("mt")), ["load.sequence_length=32"]))
    assert isinstance(workload, Translation)
    found = [one.reference for batch in workload.batches if batch.domain == "imbari" for one in workload.sources[batch.index]]
    assert found == [target for _, target in mt_pairs("imbari", "heldout", 6)]


def test_a_model_without_checkpoint_has_no_quality(micro: Micro, tmp_path: Path) -> None:
    for workload, phase in (("lm", "score"), ("mt", "decode")):
        assert measured(load_recipe(str(micro(workload))), tmp_path / workload, phase).values == {}


def noted(micro: Micro, out: Path, easy: float, *overrides: str) -> list[str]:
    """What is noted of random weights whose held-out loss is said to have been `easy` nats."""
    from moeprof.records.run.model_card import CurvePoint

    recipe, weights = load_recipe(str(micro("lm"))), out.with_suffix(".safetensors")
    curve = [CurvePoint(1, 1, 1.0, {"prose": easy, "code": easy / 2})]
    write_checkpoint(weights, build_model(recipe), origin_of(recipe, twin=False, hashes={}, tokens=1, curve=curve))
    return list(measured(load_recipe(str(micro("lm")), [f"model.checkpoint={weights}", *overrides]), out, "score").notes)


def test_text_much_harder_than_the_training_text_is_out_of_distribution(micro: Micro, tmp_path: Path) -> None:
    hard = noted(micro, tmp_path / "hard", 0.1)
    assert [note.split('"')[1] for note in hard] == ["prose", "code", "records"]
    assert "out of distribution" in hard[0]
    assert "at most 0.14 in the training domains" in hard[0]
    assert noted(micro, tmp_path / "easy", 9.0) == []


def test_text_is_judged_without_the_choices_that_the_deployed_model_drops(micro: Micro, tmp_path: Path) -> None:
    whole, dropping = (
        noted(micro, tmp_path / f"run-{share}", 0.1, f"gating.capacity_fraction={share}") for share in (1.0, 0.1)
    )
    assert dropping == whole != []
    one_bit, six_bits = Score(math.log(2) * 10, 10, 40), Score(math.log(2) * 60, 10, 40)
    assert hard_remark("mine", six_bits, one_bit, worst=math.log(2)) == (
        '"mine" takes 6.00 bits per token because of dropped choices, 1.00 without drops'
    )
    assert hard_remark("mine", six_bits, six_bits, worst=math.log(2)).startswith(
        '"mine" is out of distribution (6.00 bits per token, at most 1.00 in the training domains)'
    )


def test_sentences_that_must_be_spelled_are_out_of_distribution(trained: Callable[..., Recipe], tmp_path: Path) -> None:
    for name, line in (("source", "नेपाल एक देश हो"), ("target", "Nepal is a country")):
        (tmp_path / name).write_text(f"{line}\n" * 3, encoding="utf-8")
    files = f'data.files={{ne-en=["{tmp_path / "source"}", "{tmp_path / "target"}"]}}'
    assert measured(trained("mt", files, "load.sequence_length=20"), tmp_path / "foreign", "encode").notes == [
        '"ne-en" is out of distribution (100% of its source tokens are bytes, not words): its routing may not be representative'
    ]
    assert measured(trained("mt"), tmp_path / "own", "encode").notes == []


def test_a_contender_whose_outputs_are_no_numbers_has_no_quality_and_the_run_can_be_read(
    trained: Callable[..., Recipe], micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = f"model.checkpoint={trained('lm').model.checkpoint}"
    spoil(monkeypatch, "dynamic", lambda y_TD: y_TD * float("nan"))
    run = studied(micro("lm"), tmp_path / "run", checkpoint, passes=[measure_quality])
    assert [reason.partition(":")[0] for reason in run.record.reasons] == ["score", "decode"]
    assert set(values(run, "perplexity", "variant", phase="score")) == {("static",)}


@pytest.mark.parametrize(
    ("nats_per_token", "perplexity", "text"), [(2.0, math.exp(2), "7.39"), (709.0, math.exp(709), ""), (750.0, None, "> 1e308")]
)
def test_a_perplexity_above_1e308_is_written_so_and_its_cross_entropy_stays_a_number(
    tmp_path: Path, nats_per_token: float, perplexity: float | None, text: str
) -> None:
    scores = {"phase": "score", "variant": "static", "domain": "prose", "tokens": 30, "bytes": 60, "nats": 30 * nats_per_token}
    found = raw_run(tmp_path / "run", {SCORES: [scores]}, variants=labelled(STATIC))
    rows = [RecordedRow(RowKey(*row.address), "", "routed", row.value) for row, _ in score_rows(found)]
    metrics = RunMetrics.from_rows(found.record, rows)
    here = metrics.at(phase="score", variant="static")
    assert here.value("bits_per_byte") == pytest.approx(nats_per_token / math.log(2) / 2)
    assert here.or_none("perplexity") == (perplexity and pytest.approx(perplexity))
    assert text in perplexity_cell(here)
