"""Load balancing on two real ranks: placed by the earlier batches, judged on the later ones, and told as plain loops find it."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from parallel.ranks import over_ranks

from moeprof.analysis.model_size import ffn_parameters, memory_need
from moeprof.parallel.group import ALONE, Group
from moeprof.records.placement import Placement
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import render
from moeprof.studies.optimize import optimization
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.time import measure_time
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.selection import first_steps, later_half
from moeprof.studies.services import Findings
from moeprof.studies.study import Study
from moeprof.workloads.registry import make_workload
from tests.records.run.runs import value_of

from .runs import Micro, values

DOMAINS = {"lm": "data.domains=['prose', 'code']", "mt": "data.domains=['imbari', 'dorvek']"}
LOAD = ("model.experts=8", "load.batches=4", "routing.source=zipf:1.2,sorted", "measure.warmup=0")
NOTHING = {"kernel": "loop", "balancer": None, "replicas": None, "placement": None}
EXPERTS, RANKS = 8, 2
PASSES = (check_outputs, measure_time, measure_memory)
"""Without those that only look closer, which take most of the time."""


def made(group: Group, recipe: str, workload: str, folder: Path) -> list[bool]:
    """One rank's part of a run that makes a placement (of MT: with copies), and of one that deploys its file."""
    loaded = load_recipe(recipe, [DOMAINS[workload], *LOAD, f"parallel.ranks={group.size}"])
    replicas = "1" if workload == "mt" else None
    first = optimization(loaded, ["load-balancing"], NOTHING | {"replicas": replicas})
    valid = [replace(first, passes=lambda _: PASSES).run(loaded, folder / "made", group=group).record.valid]
    if workload == "lm":
        path = str(folder / "made" / "placements" / "score-dynamic+loop+greedy.json")
        again = optimization(loaded, ["load-balancing"], NOTHING | {"placement": path})
        valid.append(replace(again, passes=lambda _: PASSES[:2]).run(loaded, folder / "deployed", group=group).record.valid)
    return valid


@pytest.fixture(scope="module", params=["lm", "mt"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import MICRO

    folder = tmp_path_factory.mktemp(request.param)
    (folder / "micro.toml").write_text(MICRO[request.param])
    valid = over_ranks(RANKS, made, str(folder / "micro.toml"), request.param, folder)
    assert valid[0] == [True] * len(valid[0])
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run.open(folder / "made")


lm_only = pytest.mark.parametrize("folder", ["lm"], indirect=True)
"""The run of LM places each expert once, the one of MT makes copies."""


def placed(run: Run) -> str:
    return str(run.record.variants[-1]["label"])


def phases(run: Run) -> list[str]:
    return list(run.record.ran.phases)


Loads = dict[str, dict[int, list[Counter[int]]]]
"""By layer and step: choices of every expert, rank by rank."""


def loads(run: Run, phase: str, variant: str, *, later: bool) -> Loads:
    """Of each domain's earlier or later batches, counted row by row."""
    found: Loads = {}
    starts = first_later_steps(run, phase)
    for trace in run.traces:
        if (trace.header.phase, trace.header.variant) == (phase, variant):
            code, domains = trace.codes("domain")
            layer_code, layers = trace.codes("layer")
            for row, (step, expert) in enumerate(zip(trace.column("step"), trace.column("expert"), strict=True)):
                if (step >= starts[domains[code[row]]]) == later:
                    layer = found.setdefault(layers[layer_code[row]], {})
                    layer.setdefault(int(step), [Counter() for _ in range(RANKS)])[trace.header.rank][int(expert)] += 1
    return found


def first_later_steps(run: Run, phase: str) -> dict[str, int]:
    """Of four batches a domain, the third one's first step."""
    load = run.record.ran.load
    each = load.decode_steps if phase == "decode" else 1
    return {domain: (4 * number + 2) * each for number, domain in enumerate(run.record.text_hashes)}


def served(run: Run, phase: str, steps: dict[int, list[Counter[int]]], ranks: tuple[tuple[int, ...], ...]) -> list[list[int]]:
    """Choices that every rank serves in each step, dealt one by one."""
    found = []
    for step, counts in steps.items():
        loads = [0] * RANKS
        for source, of_rank in enumerate(counts):
            for expert, count in of_rank.items():
                homes = [rank for rank, held in enumerate(ranks) if expert in held]
                for choice in range(count):
                    loads[homes[(choice + step + source) % len(homes)]] += 1
        found.append(loads)
    return found


def placement_of(run: Run, phase: str, variant: str) -> Placement:
    if variant == "dynamic+loop":
        return Placement.contiguous(run.record.ran.model.moe_layers_of("all"), EXPERTS, RANKS)
    return Placement.read(run.path / "placements" / f"{phase}-{variant}.json")


@lm_only
def test_greedy_places_by_the_earlier_batches_alone(run: Run) -> None:
    assert placed(run) == "dynamic+loop+greedy"
    for phase in phases(run):
        for layer, steps in loads(run, phase, "dynamic+loop", later=False).items():
            shares: dict[int, float] = defaultdict(float)
            for counts in steps.values():
                together = sum(counts, Counter[int]())
                for expert, count in together.items():
                    shares[expert] += count / together.total() / len(steps)
            ranks: list[list[int]] = [[] for _ in range(RANKS)]
            for expert in sorted(range(EXPERTS), key=lambda expert: (-round(shares[expert], 12), expert)):
                room = [rank for rank in range(RANKS) if len(ranks[rank]) < EXPERTS // RANKS]
                best = min(room, key=lambda rank: (round(sum(shares[one] for one in ranks[rank]), 12), rank))
                ranks[best].append(expert)
            assert placement_of(run, phase, placed(run)).layers[layer] == tuple(tuple(sorted(held)) for held in ranks)


def test_loads_are_those_of_the_later_batches_under_the_placement(run: Run) -> None:
    for phase in phases(run):
        for variant in ("dynamic+loop", placed(run)):
            means = []
            for layer, steps in loads(run, phase, "dynamic+loop", later=True).items():
                dealt = served(run, phase, steps, placement_of(run, phase, variant).layers[layer])
                tops = [max(loads) / sum(loads) for loads in dealt]
                where = {"phase": phase, "variant": variant, "layer": layer}
                assert value_of(run, "avg_max_load", **where) == pytest.approx(fmean(tops))
                assert value_of(run, "max_load", **where) == pytest.approx(max(tops))
                for rank in range(RANKS):
                    tokens = value_of(run, "rank_tokens", **where, rank=str(rank))
                    assert tokens == pytest.approx(fmean(loads[rank] for loads in dealt))
                means.append(fmean(tops))
            assert value_of(run, "avg_max_load", phase=phase, variant=variant) == pytest.approx(fmean(means))


def test_skewed_ranks_become_even_and_nobody_computes_anything_else(run: Run) -> None:
    for phase in phases(run):
        before, after = (value_of(run, "avg_max_load", phase=phase, variant=one) or 0 for one in ("dynamic+loop", placed(run)))
        ideal, floor = (
            value_of(run, metric, phase=phase, variant=placed(run)) or 0 for metric in ("ideal_load", "avg_max_load_floor")
        )
        assert (before > 0.7, ideal) == (True, 0.5)
        assert ideal <= floor <= before
        assert after < 0.65
        gain = value_of(run, "load_gain", phase=phase, variant=placed(run))
        assert gain == pytest.approx(1 - after / before)
        assert value_of(run, "output_tokens_differing", phase=phase, variant=placed(run)) == 0
        assert values(run, "speedup_equal_batch", "category", phase=phase, variant=placed(run)).keys() == {
            ("static",),
            ("dynamic+loop",),
        }


@lm_only
def test_no_placement_without_copies_is_below_the_floor(run: Run) -> None:
    for phase in phases(run):
        after, floor = (
            value_of(run, metric, phase=phase, variant=placed(run)) for metric in ("avg_max_load", "avg_max_load_floor")
        )
        assert after is not None
        assert floor is not None
        assert after >= floor - 1e-12


def test_the_move_is_told_by_experts_bytes_time_and_steps(run: Run) -> None:
    model = run.record.ran.model
    for phase in phases(run):
        contiguous, other = (placement_of(run, phase, variant) for variant in ("dynamic+loop", placed(run)))
        strangers = sum(
            expert not in contiguous.layers[layer][rank]
            for layer in run.record.ran.moe_layers(phase)
            for rank, held in enumerate(other.layers[layer])
            for expert in held
        )
        where = {"phase": phase, "variant": placed(run)}
        assert value_of(run, "moved_experts", **where) == strangers > 0
        assert value_of(run, "moved_bytes", **where) == strangers * ffn_parameters(model) * 4
        took = value_of(run, "move_time", **where)
        assert took
        before, after = (value_of(run, "step_latency", phase=phase, variant=one) or 0 for one in ("dynamic+loop", placed(run)))
        paid = value_of(run, "payoff_steps", **where)
        assert paid == (pytest.approx(took / (before - after)) if after < before else None)


def test_copies_take_memory_and_nothing_else_does(run: Run) -> None:
    plain, with_copies = (value_of(run, "memory_static", variant=variant) or 0 for variant in ("dynamic+loop", placed(run)))
    model, copies = run.record.ran.model, int(run.record.variants[-1]["replicas"])
    assert with_copies - plain == copies * len(run.record.ran.model.moe_layers_of("all")) * ffn_parameters(model) * 4
    for phase in phases(run):
        peak, dynamic = (
            value_of(run, f"memory_{part}_peak", phase=phase, variant=placed(run)) or 0 for part in ("total", "dynamic")
        )
        assert peak - dynamic == with_copies


def test_every_file_is_whole_and_for_this_model(run: Run) -> None:
    for phase in phases(run):
        placement = placement_of(run, phase, placed(run))
        placement.fits(run.path, run.record.ran)
        assert placement.model_hash == run.record.weights_hash
        assert set(placement.layers) == set(run.record.ran.model.moe_layers_of("all"))


def replay_of(run: Run, phase: str, out: Path) -> Callable[..., float | None]:
    """Replays the run's trace with the same balancer, and reads values of that placement."""
    name = placed(run).rpartition("+")[2]
    loads = read_loads(run.path, "decode" if phase == "decode" else "prefill", "dynamic+loop")
    asked = PlacementOptions(balancers=[name], devices=[RANKS], replicas=int(run.record.variants[-1]["replicas"]))
    replayed = replay_placements(loads, asked, out)
    where = {"phase": next(iter(loads.inputs.layers)), "variant": "dynamic+loop", "point": f"balancer={name};devices={RANKS}"}
    return lambda metric, **address: value_of(replayed, metric, **where, **address)


@pytest.mark.parametrize(("folder", "phase"), [("lm", "score"), ("lm", "decode"), ("mt", "encode")], indirect=["folder"])
def test_a_replay_of_the_run_predicts_its_largest_loads(run: Run, phase: str, tmp_path: Path) -> None:
    """Not those of decoding in MT: batches end with their sentences, so that half of the steps are not half of the batches."""
    predicted = replay_of(run, phase, tmp_path / "replay")
    for layer in run.record.ran.moe_layers(phase):
        largest = value_of(run, "avg_max_load", phase=phase, variant=placed(run), layer=layer)
        assert largest is not None
        assert predicted("avg_max_load", layer=layer) == pytest.approx(largest)


@lm_only
def test_a_replay_of_the_run_predicts_the_load_of_every_rank(run: Run, tmp_path: Path) -> None:
    """All scoring steps have as many choices, so that means of shares are shares of means."""
    predicted = replay_of(run, "score", tmp_path / "replay")
    for layer in run.record.ran.moe_layers("score"):
        where = {"phase": "score", "variant": placed(run), "layer": layer}
        tokens = [value_of(run, "rank_tokens", **where, rank=str(rank)) or 0 for rank in range(RANKS)]
        shares = [predicted("device_load", layer=layer, rank=str(rank)) for rank in range(RANKS)]
        assert shares == pytest.approx([one / sum(tokens) for one in tokens])


@lm_only
def test_a_file_deploys_what_a_balancer_made(folder: Path, run: Run) -> None:
    again = Run.open(folder / "deployed")
    assert placed(again) == "dynamic+loop+file"
    for metric in ("rank_tokens", "avg_max_load", "max_load", "moved_bytes", "load_gain"):
        assert values(again, metric, "rank", "layer", phase="score", variant=placed(again)) == values(
            run, metric, "rank", "layer", phase="score", variant=placed(run)
        )
    assert value_of(again, "output_tokens_differing", phase="decode", variant=placed(again)) == 0


def test_the_report_says_it(run: Run) -> None:
    report = render(run, "markdown")
    assert f"### Expert placement: {placed(run)}" in report
    assert "Load balance (" in report.partition("## Phase")[0]
    assert "Move: " in report


# What is judged


def recipe_of(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), ["data.domains=['prose', 'code']", "load.phases=['score']", *overrides])


@pytest.mark.parametrize(("batches", "kept"), [(1, [0, 1]), (2, [1, 3]), (3, [1, 2, 4, 5])])
def test_the_later_half_of_every_domain_is_judged_the_odd_batch_too(micro: Micro, batches: int, kept: list[int]) -> None:
    episodes = make_workload(recipe_of(micro("lm"), f"load.batches={batches}")).episodes("score")
    judged = later_half(episodes)
    assert [episode.batch.index for episode in judged] == kept
    assert first_steps(judged) == {"prose": kept[0], "code": kept[len(kept) // 2]}


@pytest.mark.parametrize(("placement", "seen"), [("greedy", [2, 3, 6, 7]), ("contiguous", list(range(8)))])
def test_passes_after_the_first_see_only_what_no_placement_has_seen(
    micro: Micro, tmp_path: Path, placement: str, seen: list[int]
) -> None:
    found: list[int] = []

    def look(services: object, phase: str, episodes: list) -> Findings:
        found.extend(episode.batch.index for episode in episodes)
        return Findings()

    variants = dict.fromkeys([STATIC, Variant("dynamic", "loop"), Variant("dynamic", "loop", placement=placement)])
    study = Study("optimize", list(variants), lambda workload: (look,))
    run = study.run(recipe_of(micro("lm"), "load.batches=4"), tmp_path / "run", group=ALONE)
    assert found == seen
    assert {trace.header.phase for trace in run.traces} == {"score"}
    assert len(run.trace("score", "static").column("step")) > 0
    assert set(run.trace("score", "static").column("step").tolist()) == set(range(8))


def test_weights_that_are_held_twice_are_asked_for_before_anything_is_allocated(micro: Micro) -> None:
    recipe = load_recipe(str(micro("lm")), ["parallel.ranks=2"])
    expert_bytes = ffn_parameters(recipe.model) * 4
    greedy, copying = Variant("dynamic", placement="greedy"), Variant("dynamic", placement="eplb-distinct", replicas=1)
    plain, placed = (memory_need(recipe, variants=(STATIC, *more)).weights for more in ((), (greedy, copying)))
    assert placed - plain == (2 + 3) * expert_bytes  # one layer, 4 experts on 2 ranks


def test_a_single_batch_places_nothing_and_a_remark_says_so(micro: Micro, tmp_path: Path) -> None:
    variants = (STATIC, Variant("dynamic", "loop", placement="greedy"))
    study = Study("optimize", variants, lambda workload: ())
    run = study.run(recipe_of(micro("lm"), "load.batches=1"), tmp_path / "run")
    assert [note for note in run.record.notes if "no domain has two batches" in note]
    layers = Placement.read(run.path / "placements" / "score-dynamic+loop+greedy.json").layers
    assert layers == {"1": ((0, 1, 2, 3),)}
    assert value_of(run, "moved_bytes", phase="score", variant="dynamic+loop+greedy") == 0
    assert value_of(run, "load_gain", phase="score", variant="dynamic+loop+greedy") is None
