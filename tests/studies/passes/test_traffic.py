"""The traffic of real ranks: bytes that can be worked out, loads that the routing explains, and nothing of a rank that is alone."""

from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.timing.communication import bytes_by_pair
from moeprof.parallel.group import Group
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.run import Run
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.traffic import measure_traffic
from moeprof.studies.study import Study
from tests.conftest import MICRO
from tests.parallel.ranks import over_ranks
from tests.records.run.runs import value_of
from tests.studies.runs import DYNAMIC, Micro, studied

ROW_BYTES = 16 * 4
"""The micro recipe's width in float32."""

EXPERTS, TOP_K, ROUNDS = 4, 2, 3
OVERRIDES = ("load.batches=1", "load.batch_size=4", "measure.rounds=5", "gating.capacity_fraction=0.8")


def study(group: Group, recipe: Path, out: Path) -> None:
    """One rank's part."""
    over = Study("characterize", (STATIC, DYNAMIC, DENSE), lambda _: (measure_memory, measure_traffic))
    over.run(load_recipe(str(recipe), [*OVERRIDES, f"parallel.ranks={group.size}"]), out, group=group)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two ranks, both phases of a language model with one MoE layer."""
    folder = tmp_path_factory.mktemp("ranks")
    recipe = folder / "lm-micro.toml"
    recipe.write_text(MICRO["lm"])
    over_ranks(2, study, recipe, folder / "run")
    return Run.open(folder / "run")


def tokens_of(run: Run, phase: str, variant: str) -> int:
    """Tokens of all ranks and steps."""
    traces = [trace for trace in run.traces if (trace.header.phase, trace.header.variant) == (phase, variant)]
    assert sorted(trace.header.rank for trace in traces) == [0, 1]
    return sum(len(trace) // TOP_K for trace in traces)


def sent(run: Run, phase: str, variant: str, region: str) -> float:
    """Bytes that all ranks send in one round."""
    found = run.traffic.of(phase, variant)
    assert found is not None
    here = [region == name for name in found.regions]
    return float(found.bytes_CNN[here].sum()) / ROUNDS


@pytest.mark.parametrize("phase", ["score", "decode"])
def test_dynamic_gating_sends_what_its_tokens_need_and_static_gating_the_waste_factor_of_it(run: Run, phase: str) -> None:
    needed = tokens_of(run, phase, "dynamic+loop") * TOP_K * ROW_BYTES
    waste = value_of(run, "waste_factor", phase=phase, variant="static")
    assert waste is not None
    assert waste > 1
    for region in ("a2a_dispatch", "a2a_combine"):
        assert sent(run, phase, "dynamic+loop", region) == needed
        assert sent(run, phase, "static", region) == pytest.approx(waste * needed, rel=1e-12)


@pytest.mark.parametrize("phase", ["score", "decode"])
def test_static_gating_has_two_collectives_in_a_layer_and_dynamic_gating_three(run: Run, phase: str) -> None:
    at = {"phase": phase, "layer": "1"}
    assert value_of(run, "collectives", variant="static", **at) == 2
    assert value_of(run, "collectives", variant="dynamic+loop", **at) == 3
    assert value_of(run, "collectives", variant="dense", **at) is None
    sizes = value_of(run, "comm_bytes", variant="dynamic+loop", region="a2a_sizes", **at)
    assert sizes == 2 * EXPERTS * 8


def test_what_a_rank_receives_is_what_the_routers_sent_to_its_experts(run: Run) -> None:
    """The bytes come from the collectives, the tokens from the routing traces."""
    found = run.traffic.of("decode", "dynamic+loop")
    assert found is not None
    here_C = np.array(found.regions) == "a2a_dispatch"
    steps = len(np.unique(found.step_C)) * ROUNDS
    received = found.bytes_CNN[here_C].sum(axis=(0, 1)) / steps
    for rank in (0, 1):
        tokens = value_of(run, "rank_tokens", phase="decode", variant="dynamic+loop", rank=str(rank))
        assert tokens is not None
        assert received[rank] == pytest.approx(tokens * ROW_BYTES)
    assert bytes_by_pair(found).sum() == pytest.approx(value_of(run, "comm_bytes", phase="decode", variant="dynamic+loop"))


def test_every_number_over_ranks_and_of_each_is_there(run: Run) -> None:
    for phase in ("score", "decode"):
        for variant in ("static", "dynamic+loop"):
            at = {"phase": phase, "variant": variant}
            for metric in ("comm_time", "comm_wait_time", "comm_exposed_time", "floor_time", "time_over_floor"):
                assert value_of(run, metric, **at) is not None
            for metric in ("comm_bytes", "comm_wait_time", "comm_exposed_time", "rank_tokens", "memory_total_peak"):
                assert None not in [value_of(run, metric, rank=rank, **at) for rank in ("0", "1")]
            for metric in ("rank_load_max_over_mean", "rank_wait_max_over_mean", "rank_memory_max_over_mean"):
                ratio = value_of(run, metric, **at)
                assert ratio is not None
                assert 1 <= ratio <= 2
            share = value_of(run, "comm_share", **at)
            assert share is not None
            assert 0 < share < 1
    assert value_of(run, "link_latency", category="within a machine") is not None


def test_raw_rounds_are_kept_for_times_over_all_layers(run: Run) -> None:
    samples = run.samples[run.samples["metric"] == "comm_time"]
    assert set(samples["round"]) == set(range(ROUNDS))
    assert set(samples["region"]) == {"", "a2a_sizes", "a2a_dispatch", "a2a_combine"}
    assert set(samples["layer"]) == {""}


def test_a_rank_that_is_alone_has_no_traffic(micro: Micro, tmp_path: Path) -> None:
    alone = studied(micro("lm"), tmp_path / "run", passes=[measure_traffic])
    assert alone.traffic.collectives == []
    assert not alone.metrics["metric"].str.startswith(("comm_", "rank_", "link_")).any()
