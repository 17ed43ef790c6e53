"""The summary of a characterization says what became of sentences that are too long."""

from pathlib import Path

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import RecordedRow, row_key
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.records.run.run import FittedText
from moeprof.reporters.documents.summary import summary
from tests.records.run.runs import labelled, raw_run


def lines(path: Path, **domains: tuple[int, int, int, int, int]) -> list[str]:
    """The summary of a run of mt-tiny without metrics, with these counts of each domain."""
    fitted = {name: FittedText(**dict(zip(FittedText.model_fields, counts, strict=True))) for name, counts in domains.items()}
    run = raw_run(path, {}, recipe=load_recipe("mt-tiny"), fitted=fitted)
    return summary(run, RunMetrics.from_rows(run.record, []))


def test_split_and_omitted_sentences_are_counted_over_all_domains(tmp_path: Path) -> None:
    assert lines(tmp_path / "run", ne=(9, 9, 1, 4, 51), en=(20, 3, 0, 1, 40)) == [
        "Text: 12 of 29 sentences have more than 31 tokens and were split at sentence or word boundaries. "
        "1 of them did not fit whole into the batches and has no chrF.",
        "Text: 5 of 34 sentences were left out, because a word has more than 31 tokens; --set load.sequence_length=52 keeps them.",
    ]


def test_nothing_is_said_if_every_sentence_is_short(tmp_path: Path) -> None:
    assert lines(tmp_path / "run", ne=(9, 0, 0, 0, 0)) == []
    assert lines(tmp_path / "old") == []


def test_the_chrf_of_text_that_the_model_can_only_spell_says_little(tmp_path: Path) -> None:
    row = RecordedRow(row_key("chrf", workload="mt", phase="decode", variant="static"), "points", "routed", 0.42)
    for note, said in (("", "against the references"), ('"ne-en" is out of distribution (100% ...)', "says little")):
        run = raw_run(tmp_path / f"run{len(note)}", {}, recipe=load_recipe("mt-tiny"), notes=[note], variants=labelled(STATIC))
        (line,) = summary(run, RunMetrics.from_rows(run.record, [row]))
        assert line.startswith("Quality (decode): chrF 0.4")
        assert said in line
