"""What the report says of ranks: from collectives written by hand, so that every cell is known."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.analysis.imbalance import imbalance_rows
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.communication import link_rows, share_rows, traffic_floor_rows, traffic_rows
from moeprof.analysis.timing.timing import Timing, summed
from moeprof.records.link import WITHIN, Link, Links
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.document import Block, Details, HeatMap, Paragraph, Table
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.documents.summary import summary
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.formats.registry import FORMATS, render
from moeprof.reporters.formats.terminal import render_document as terminal
from tests.records.run.runs import value_of
from tests.records.traces.traffics import rows_of, traffic_of

MIB, MS = 2**20, 10**6
LINK = Link(sizes_bytes=[8, 8 * MIB], times_ns=[50_000, 4.05 * MS])
"""Close to 2 GiB/s."""


def run_of(path: Path, *, ranks: int = 2, command: str = "characterize", variants: Sequence[str] = ("static",)) -> Run:
    """Two collectives in one step: rank 0 comes 3 ms before the others, and all are done 2 ms after they came."""
    labels = [{"label": label, "dispatch": label} for label in variants]
    recipe = load_recipe("lm-tiny", [f"parallel.ranks={ranks}"])
    writer = RunWriter(path, RunRecord(command=command, recipe=recipe, variants=labels))
    times = [(0, 0, 5 * MS), *[(3 * MS, 3 * MS, 5 * MS)] * (ranks - 1)]
    bytes_NN = [[(source + 1) * MIB if source != to else 5 * MIB for to in range(ranks)] for source in range(ranks)]
    for variant in variants:
        traffic = traffic_of(
            rows_of(bytes_NN, times, variant=variant),
            rows_of(bytes_NN, times, variant=variant, op_id=1, region="a2a_combine"),
        )
        writer.add_traffic(traffic)
        (collectives,), links = traffic.collectives, Links([0] * ranks, {WITHIN: LINK})
        told = [*traffic_rows("lm", collectives), *traffic_floor_rows("lm", collectives, links)]
        timing = Timing(variant, "prose", [40 * MS], 1, 1)
        rows = [row for row, _ in [*told, *share_rows(told, [timing, *summed([timing])])]]
        waits = [row for row in rows if row.metric == "comm_wait_time" and row.layer and not row.region]
        at = {"workload": "lm", "phase": "score", "variant": variant}
        memory = [MetricRow("memory_total_peak", (rank + 1) * MIB, **at, rank=str(rank)) for rank in range(ranks)]
        tokens = [MetricRow("rank_tokens", 100 * (rank + 1), **at, domain="prose", rank=str(rank)) for rank in range(ranks)]
        writer.add_metrics([*rows, *memory, *tokens, *imbalance_rows("rank_wait_max_over_mean", waits)])
        writer.add_metrics(imbalance_rows("rank_memory_max_over_mean", memory))
        writer.add_metrics([MetricRow("rank_load_max_over_mean", 1.25, **at, domain="prose")])
    writer.add_metrics(link_rows("lm", Links([0] * ranks, {WITHIN: LINK})))
    return writer.finish()


def blocks_of(run: Run) -> list[Block]:
    """Every part, those that can be folded included."""
    found: list[Block] = []
    for block in document_of(run):
        found += [block, *(block.blocks if isinstance(block, Details) else [])]
    return found


def table_of(run: Run, column: str) -> Table:
    """The table whose first column has this name."""
    return next(block for block in blocks_of(run) if isinstance(block, Table) and block.columns[0] == column)


def test_transfer_floor_and_waiting_of_every_collective_stand_side_by_side(tmp_path: Path) -> None:
    table = table_of(run_of(tmp_path / "run"), "collective")
    rows = {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}
    assert list(rows) == ["a2a_dispatch", "a2a_combine", "all"]
    assert rows["a2a_dispatch"] == {
        "ops": "1",
        "bytes": "13 MiB",
        "transfer": "2 ms",
        "floor": "1.05 ms",  # rank 0 receives 2 MiB from rank 1: 0.05 ms, and a quarter of the 4 ms of 8 MiB
        "/floor": "1.9x",
        "waiting": "1.50 ms",
        "exposed": "3.50 ms",
    }
    assert (rows["all"]["ops"], rows["all"]["bytes"], rows["all"]["transfer"]) == ("2", "26 MiB", "4 ms")


def test_one_sentence_reports_bytes_across_ranks_and_exposed_time(tmp_path: Path) -> None:
    (sentence,) = [
        block.text for block in blocks_of(run_of(tmp_path / "run")) if isinstance(block, Paragraph) and "ranks" in block.text
    ]
    assert sentence == (
        "Per score step, 2 ranks send 26 MiB, of which 6 MiB go to other ranks. The transfer takes 4 ms, 1.9x its floor on the "
        "measured link; in addition a rank waits 3 ms for the others (mean). Exposed communication: 7 ms, 17.5% of the step."
    )


def test_summary_and_verdict_have_one_line_about_communication(tmp_path: Path) -> None:
    line = "Communication between 2 ranks: 6 MiB and 7 ms exposed per score step (17.5% of it)."
    characterized = run_of(tmp_path / "a")
    optimized = run_of(tmp_path / "b", command="optimize", variants=("static", "dynamic"))
    assert line in summary(characterized, RunMetrics.of(characterized))
    assert line in verdict(optimized, RunMetrics.of(optimized))


def test_the_size_of_a_model_is_given_per_rank(tmp_path: Path) -> None:
    metrics = {"num_parameters": 4000, "expert_parameters": 3000, "memory_static": 8 * MIB, "flops_per_token": 2000}
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny", ["parallel.ranks=2"])))
    writer.add_metrics(
        MetricRow(name, value, "lm", variant=label) for name, value in metrics.items() for label in ("static", "dense")
    )
    run = writer.finish()
    assert summary(run, RunMetrics.of(run))[0] == (
        "Model: 4000 parameters (8 MiB per rank), 75.0% of them in experts (32 per MoE layer, top-2). Dense twin: 4000 parameters."
    )


def test_the_link_stands_where_the_numbers_come_from(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    assert "- Link within a machine: 50 us latency, 1.93 GiB/s peak bandwidth" in render(run, "markdown")
    assert table_of(run, "message").rows == [["8 B", "50 us", "156 KiB/s"], ["8 MiB", "4.05 ms", "1.93 GiB/s"]]


def test_the_matrix_has_a_line_for_every_source_and_a_column_for_every_destination(tmp_path: Path) -> None:
    matrix = next(
        block for block in blocks_of(run_of(tmp_path / "run")) if isinstance(block, Table) and "to 1" in block.columns
    )
    assert matrix.rows == [["from 0", "10 MiB", "2 MiB"], ["from 1", "4 MiB", "10 MiB"]]


def test_many_ranks_make_a_map(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", ranks=8)
    (found,) = [block for block in blocks_of(run) if isinstance(block, HeatMap) and block.title == "From rank to rank"]
    assert found.labels == [str(rank) for rank in range(8)]
    assert found.values[2][:4] == [6 * MIB, 6 * MIB, 10 * MIB, 6 * MIB]
    assert found.top == 16 * MIB


def test_every_rank_has_its_tokens_memory_and_waiting_and_the_last_line_says_how_uneven_they_are(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    table = next(block for block in blocks_of(run) if isinstance(block, Table) and "peak memory" in block.columns)
    assert table.rows == [
        ["0", "100", "1 MiB", "2 MiB", "6 ms", "10 ms"],
        ["1", "200", "2 MiB", "4 MiB", "0 ns", "4 ms"],
        ["max/mean", "1.25x", "1.33x", "", "2x", ""],
    ]


def test_an_optimization_puts_variants_side_by_side_and_leaves_the_dense_twin_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", command="optimize", variants=("static", "dynamic"))
    table = table_of(run, "per step")
    assert table.columns == ["per step", "static", "dynamic"]
    assert ["bytes", "26 MiB", "26 MiB"] in table.rows
    assert ["bytes to other ranks", "6 MiB", "6 MiB"] in table.rows
    assert ["collectives", "2", "2"] in table.rows
    assert ["exposed share of step", "17.5%", "17.5%"] in table.rows
    assert [block.title for block in document_of(run) if isinstance(block, Details) and "communication" in block.title] == [
        "communication under static gating",
        "communication under dynamic gating",
    ]


@pytest.mark.parametrize("command", ["characterize", "optimize"])
def test_every_format_renders_it(command: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", command=command, variants=("static", "dynamic"), ranks=4)
    for form in FORMATS:
        assert "comm_time" in render(run, form) or "transfer" in render(run, form)


def test_it_fits_a_terminal_of_eighty_columns(tmp_path: Path) -> None:
    shown = terminal(document_of(run_of(tmp_path / "run", ranks=4)), Console(width=80))
    lines = [
        line for line in shown.splitlines() if line.startswith(("collective ", "a2a_dispatch", "from 3", "rank ", "max/mean"))
    ]
    assert len(lines) == 5 + 1, shown
    assert any(line.startswith("a2a_dispatch") and line.rstrip().endswith(" ms") for line in lines)


def test_a_single_rank_says_nothing_of_it(tmp_path: Path) -> None:
    shown = render(run_of(tmp_path / "run", ranks=1), "markdown")
    assert "Communication between ranks" not in shown


def test_ranks_without_the_pass_say_so(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny", ["parallel.ranks=2"])))
    writer.add_metrics([MetricRow("throughput", 5, "lm", "score", variant="static")])
    assert "Not measured: this run has no traffic pass." in render(writer.finish(), "markdown")


def test_numbers_of_a_rank_are_its_own(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    waiting = [value_of(run, "comm_wait_time", phase="score", variant="static", rank=rank) for rank in ("", "0", "1")]
    assert waiting == [3 * MS, 6 * MS, 0]
    assert io.StringIO(render(run, "csv")).readline().startswith("workload,")
