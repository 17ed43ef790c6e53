"""A replay of placements leaves an ordinary run directory, and a placement that can be deployed."""

import json
from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.placement import balance_results
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.analysis.run_metrics import of_replay
from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import PlacementFacts
from moeprof.records.placement_formats.registry import NO_FACTS, PLACEMENT_FORMATS, read_placement
from moeprof.records.run.run import Run
from moeprof.studies.replay.loads import ReplayLoads, read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.analysis.traces import Row, trace_of
from tests.records.run.runs import fault, value_of
from tests.studies.replay.logs import route_log, run_of_shape

LAYERS = ("1", "3")


def skewed(path: Path, num_steps: int = 40, domains: tuple[str, ...] = ("prose",), num_experts: int = 8) -> Path:
    """A trace of top-1 steps of 64 tokens in which low ids are hot, as `zipf:1.2,sorted` makes them."""
    generator = np.random.default_rng(0)
    weights = np.arange(1, num_experts + 1, dtype=np.float64) ** -1.2
    rows = [
        Row(step, int(expert), layer=layer, domain=domains[step * len(domains) // num_steps], sequence=token)
        for step in range(num_steps)
        for layer in LAYERS
        for token, expert in enumerate(generator.choice(num_experts, 64, p=weights / weights.sum()))
    ]
    trace_of(rows, num_experts=num_experts, layers=LAYERS).write(path)
    return path


def replayed(loads: ReplayLoads, out: Path, **asked: object) -> Run:
    return replay_placements(loads, PlacementOptions(**asked), out)  # type: ignore[arg-type]


def by_hand(total_E: Counts, devices: int) -> list[list[int]]:
    """Greedy placement, expert by expert."""
    members: list[list[int]] = [[] for _ in range(devices)]
    for expert in sorted(range(len(total_E)), key=lambda expert: -int(total_E[expert])):
        free = [device for device in range(devices) if len(members[device]) < len(total_E) // devices]
        members[min(free, key=lambda device: (sum(int(total_E[m]) for m in members[device]), device))].append(expert)
    return [sorted(found) for found in members]


@pytest.fixture
def loads(tmp_path: Path) -> ReplayLoads:
    return read_loads(skewed(tmp_path / "t.parquet"))


def test_numbers_stand_at_their_points(loads: ReplayLoads, tmp_path: Path) -> None:
    run = replayed(loads, tmp_path / "run", balancers=["greedy"], devices=[4])
    table = loads.inputs.layers["decode"][0][0].counts_EB
    greedy = np.array(by_hand(table[:, :20].sum(axis=1), 4))
    tops = {
        "contiguous": table[:, 20:].reshape(4, 2, 20).sum(axis=1).max(axis=0) / 64,
        "greedy": table[:, 20:][greedy].sum(axis=1).max(axis=0) / 64,
    }
    for name, top_B in tops.items():
        at = {"phase": "decode", "variant": "static", "point": f"balancer={name};devices=4"}
        assert value_of(run, "avg_max_load", layer="1", **at) == pytest.approx(top_B.mean())
        assert value_of(run, "max_load", layer="1", **at) == pytest.approx(top_B.max())
        values = [value_of(run, "avg_max_load", layer=layer, **at) or 0.0 for layer in LAYERS]
        assert value_of(run, "avg_max_load", **at) == pytest.approx(np.mean(values))
        assert value_of(run, "avg_max_load_worst", **at) == pytest.approx(max(values))
    hottest = table[:, 20:].max(axis=0) / 64
    floor = {"phase": "decode", "variant": "static", "point": "devices=4", "layer": "1"}
    assert value_of(run, "avg_max_load_floor", **floor) == pytest.approx(np.maximum(hottest, 0.25).mean())
    assert value_of(run, "max_load_floor", **floor) == pytest.approx(hottest.max())
    assert value_of(run, "test_steps", phase="decode", variant="static") == 20
    moved = {"phase": "decode", "variant": "static", "point": "balancer=greedy;devices=4"}
    elsewhere = sum(expert // 2 != device for device, pair in enumerate(greedy.tolist()) for expert in pair)
    assert value_of(run, "moved_experts", layer="1", **moved) == elsewhere > 0
    assert run.record.valid


def test_a_skewed_text_is_recommended_for_greedy(loads: ReplayLoads, tmp_path: Path) -> None:
    results = of_replay(replayed(loads, tmp_path / "run", devices=[2, 4]))
    best = balance_results.best(results, "decode", 4, copies=False)
    assert best is not None
    assert best[1].verdict == "recommended"
    assert balance_results.phases(results) == ["decode"]
    assert balance_results.layers(results, "decode") == ["1", "3"]
    for name in balance_results.balancers(results, "decode", 4):
        at = results.at(phase="decode", point=f"balancer={name};devices=4")
        assert 1 / 4 <= at.value("avg_max_load") <= at.value("max_load") <= 1  # statement 23
        shares = [at.value("device_load", layer="1", rank=str(device)) for device in range(4)]
        assert sum(shares) == pytest.approx(1)


def test_loads_are_routed_times_are_modelled_and_slots_exact(tmp_path: Path) -> None:
    loads = read_loads(skewed(tmp_path / "t.parquet"), token_bytes=100)
    table = replayed(loads, tmp_path / "run", devices=[4], nodes=2).metrics
    kinds = {metric: set(rows["kind"]) for metric, rows in table.groupby("metric")}
    assert all(len(kind) == 1 for kind in kinds.values())
    assert {metric for metric, kind in kinds.items() if kind == {"modelled"}} == {"virtual_comm_time", "virtual_wait_time"}
    exact = {metric for metric, kind in kinds.items() if kind == {"exact"}}
    assert exact == {"ideal_load", "history_steps", "test_steps", "test_step_tokens", "device_slots", "compared_gains"}


def test_bytes_are_both_ways_and_pairs_add_up(tmp_path: Path) -> None:
    loads = read_loads(skewed(tmp_path / "t.parquet"), token_bytes=100)
    run = replayed(loads, tmp_path / "run", balancers=["greedy"], devices=[4], nodes=2)
    at = {"phase": "decode", "variant": "static", "point": "balancer=greedy;devices=4"}
    tokens = {
        category: value_of(run, "virtual_comm_tokens", category=category, **at) or 0.0
        for category in ("", "same node", "other nodes")
    }
    assert tokens[""] == pytest.approx(tokens["same node"] + tokens["other nodes"])
    pairs = [
        value_of(run, "virtual_comm_tokens", category=f"{a}>{b}", **at) or 0.0 for a in range(4) for b in range(4) if a != b
    ]
    assert sum(pairs) == pytest.approx(tokens[""])
    assert value_of(run, "virtual_comm_bytes", **at) == pytest.approx(200 * tokens[""])
    nodes = [value_of(run, "virtual_comm_tokens", category=f"node {pair}", **at) or 0.0 for pair in ("0>1", "1>0")]
    assert sum(nodes) == pytest.approx(tokens["other nodes"])


def test_choices_on_one_device_are_counted_as_copies_and_as_one_token(tmp_path: Path) -> None:
    # two tokens on two devices; both choices of each are served by device 1, which only the first token must travel to
    rows = [
        Row(step, expert, slot=slot, sequence=token)
        for step in range(20)
        for token in (0, 1)
        for slot, expert in ((0, 2), (1, 3))
    ]
    trace_of(rows, num_experts=4, layers=("1",)).write(tmp_path / "t.parquet")
    loads = read_loads(tmp_path / "t.parquet", token_bytes=1000)
    run = replayed(loads, tmp_path / "run", balancers=["contiguous"], devices=[2])
    assert sent(run) == {"tokens": 2, "bytes": 4000, "unique_tokens": 1, "unique_bytes": 2000}
    assert sent(run, category="0>1")["unique_tokens"] == 1
    assert sent(run, category="1>0") == {"tokens": 0, "bytes": 0, "unique_tokens": 0, "unique_bytes": 0}


def test_choices_on_one_node_are_counted_once_per_choice_device_and_node(tmp_path: Path) -> None:
    # token t of four is on device t; its choices are experts 0, 2 and 3, on devices 0, 2 and 3, and devices 0 and 1 are node 0
    rows = [
        Row(step, expert, slot=slot, sequence=token)
        for step in range(20)
        for token in range(4)
        for slot, expert in enumerate((0, 2, 3))
    ]
    trace_of(rows, num_experts=4, layers=("1",)).write(tmp_path / "t.parquet")
    run = replayed(
        read_loads(tmp_path / "t.parquet", token_bytes=1000), tmp_path / "run", balancers=["contiguous"], devices=[4], nodes=2
    )
    at = {"phase": "decode", "variant": "static", "point": "balancer=contiguous;devices=4"}
    assert value_of(run, "virtual_comm_unique_tokens", category="other nodes", **at) == 2 + 2 + 1 + 1
    assert value_of(run, "virtual_comm_node_unique_tokens", **at) == 1 + 1 + 1 + 1
    assert value_of(run, "virtual_comm_node_unique_tokens", category="node 0>1", **at) == 2
    assert value_of(run, "virtual_comm_node_unique_bytes", category="node 1>0", **at) == 2 * 2 * 1000


def test_the_case_of_two_choices_on_one_device(shared_data: Path, tmp_path: Path) -> None:
    loads = read_loads(shared_data.parent / "cases" / "two_choices_one_device.parquet", token_bytes=1000)
    run = replayed(loads, tmp_path / "run", balancers=["contiguous"], devices=[2])
    assert sent(run) == {"tokens": 2, "bytes": 4000, "unique_tokens": 1, "unique_bytes": 2000}


def sent(run: Run, category: str = "") -> dict[str, float | None]:
    """Traffic per step on two devices under contiguous placement."""
    at = {"phase": "decode", "variant": "static", "point": "balancer=contiguous;devices=2"}
    names = ("tokens", "bytes", "unique_tokens", "unique_bytes")
    return {name: value_of(run, f"virtual_comm_{name}", category=category, **at) for name in names}


def test_domains_place_for_each_other(tmp_path: Path) -> None:
    loads = read_loads(skewed(tmp_path / "t.parquet", domains=("prose", "code")))
    results = of_replay(replayed(loads, tmp_path / "run", balancers=["greedy"], devices=[2]))
    assert balance_results.domain_pairs(results, "decode") == [
        ("prose", "prose"),
        ("prose", "code"),
        ("code", "prose"),
        ("code", "code"),
    ]
    assert balance_results.drift_pairs(results, "decode") == ["history vs test", "prose vs code"]
    at = results.at(phase="decode", point="balancer=greedy;devices=2")
    own = at.value("avg_max_load", domain="code", category="code", layer="1")
    matrix = loads.inputs.layers["decode"][0][1]
    halves = matrix.counts_EB[:, :10], matrix.counts_EB[:, 10:]
    placement = by_hand(halves[0].sum(axis=1), 2)
    expected = np.max([halves[1][rows].sum(axis=0) for rows in placement], axis=0).mean() / 64
    assert own == pytest.approx(expected)
    across = [at.value("avg_max_load", domain=future, category=past) for past, future in (("prose", "code"), ("code", "prose"))]
    assert balance_results.load_elsewhere(results, "decode", "greedy", 2) == pytest.approx(sum(across) / 2)
    assert balance_results.best_elsewhere(results, "decode", 2, copies=False) == "greedy"
    assert balance_results.best_elsewhere(results, "decode", 2, copies=True) is None


@pytest.mark.parametrize(
    ("domains", "pair"), [(("history", "test"), '"history" vs "test"'), (("a vs b", "c"), '"a vs b" vs "c"')]
)
def test_domains_named_as_a_pair_or_as_halves_keep_their_own_drift(tmp_path: Path, domains: tuple[str, str], pair: str) -> None:
    loads = read_loads(skewed(tmp_path / "t.parquet", domains=domains))
    run = replayed(loads, tmp_path / "run", balancers=["greedy"], devices=[2])
    plain = replayed(
        read_loads(skewed(tmp_path / "u.parquet", domains=("prose", "code"))),
        tmp_path / "plain",
        balancers=["greedy"],
        devices=[2],
    )
    results, expected = of_replay(run), of_replay(plain)
    assert balance_results.drift_pairs(results, "decode") == ["history vs test", pair]
    for category, usual in ((pair, "prose vs code"), ("history vs test", "history vs test")):
        found = results.value("load_divergence", phase="decode", category=category)
        assert found == expected.value("load_divergence", phase="decode", category=usual)


def test_published_counts_place_one_domain_for_another(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "loads" / "olmoe_counts_public.json"
    run = replayed(read_loads(path), tmp_path / "run", balancers=["greedy"], devices=[8])
    counts = {domain: np.array(rows) for domain, rows in json.loads(path.read_text())["counts"].items()}
    at = {"phase": "all", "variant": "counts", "layer": "7", "domain": "wikipedia", "category": "github"}
    contiguous = counts["wikipedia"][1].reshape(8, 8).sum(axis=1).max() / counts["wikipedia"][1].sum()
    assert value_of(run, "max_load", point="balancer=contiguous;devices=8", **at) == pytest.approx(contiguous)
    hottest = counts["wikipedia"][1].max() / counts["wikipedia"][1].sum()
    assert value_of(run, "max_load_floor", point="devices=8", **at) == pytest.approx(max(hottest, 1 / 8))
    assert not run.metrics["metric"].eq("load_gain").any()
    assert value_of(run, "load_divergence", phase="all", variant="counts", category="github vs wikipedia") == pytest.approx(
        0.176, abs=1e-3
    )


def test_published_counts_of_five_domains_place_for_each_other(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "loads" / "mixtral_8x7b_counts.json"
    results = of_replay(replayed(read_loads(path), tmp_path / "run", balancers=["greedy"], devices=[2, 4]))
    document = json.loads(path.read_text())
    counts = {domain: np.array(rows) for domain, rows in document["counts"].items()}
    pairs = [(past, future) for past in counts for future in counts if past != future]
    at = results.at(phase="all", point="balancer=greedy;devices=4")
    assert balance_results.domain_pairs(results, "all") == pairs
    assert len(pairs) == 5 * 4
    for past, future in pairs:
        for row, layer in enumerate(document["layers"]):
            placement = by_hand(counts[past][row], 4)
            expected = max(int(counts[future][row][held].sum()) for held in placement) / counts[future][row].sum()
            found = at.value("max_load", layer=str(layer), domain=future, category=past)
            assert found == pytest.approx(expected)


def test_a_saved_placement_is_what_was_judged(loads: ReplayLoads, tmp_path: Path) -> None:
    replayed(loads, tmp_path / "run", balancers=["greedy"], devices=[4], save=tmp_path / "p.json")
    placement = Placement.read(tmp_path / "p.json")
    history_E = loads.inputs.layers["decode"][0][0].counts_EB[:, :20].sum(axis=1)
    assert [list(rank) for rank in placement.layers["1"]] == by_hand(history_E, 4)
    assert set(placement.layers) == {"1", "3"}
    placement.check(["1", "3"], 8, 4)


def test_a_placement_of_a_run_bears_its_model_and_layers_without_loads_are_said(tmp_path: Path) -> None:
    source = run_of_shape(tmp_path / "source", "mt-small")
    loads = read_loads(source)
    run = replayed(loads, tmp_path / "run", balancers=["eplb-distinct"], devices=[8], save=tmp_path / "p.json")
    placement = Placement.read(tmp_path / "p.json")
    assert placement.model_hash == Run.open(source).record.weights_hash
    assert all(len(rank) == 17 for ranks in placement.layers.values() for rank in ranks)
    assert loads.trace.token_bytes == 256 * 4
    assert value_of(
        run, "virtual_comm_bytes", workload="mt", phase="decode", variant="static", point="balancer=contiguous;devices=8"
    )


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (
            {"balancers": ["greedy"], "devices": [3]},
            "greedy: 8 experts do not fill 3 devices with 3 slots each, and it makes no replicas",
        ),
        ({"devices": [4], "nodes": 3}, "--devices 4: not divisible over 3 nodes"),
        ({"balancers": ["gredy"]}, "unknown balancer 'gredy'"),
    ],
)
def test_what_cannot_be_placed_is_refused(loads: ReplayLoads, tmp_path: Path, asked: dict[str, object], what: str) -> None:
    assert fault(lambda: replayed(loads, tmp_path / "run", **asked)) == what
    assert not (tmp_path / "run").exists()


def test_devices_that_the_experts_do_not_divide_over_are_left_to_who_makes_copies(loads: ReplayLoads, tmp_path: Path) -> None:
    run = replayed(loads, tmp_path / "run", devices=[3, 4], balancers=["greedy", "eplb"])
    points = set(run.metrics["point"]) - {"", "devices=3", "devices=4"}
    assert points == {"balancer=eplb;devices=3", *(f"balancer={name};devices=4" for name in ("contiguous", "greedy", "eplb"))}
    assert [note for note in run.record.notes if note.startswith("left out: ")] == [
        f"left out: {name}: 8 experts do not fill 3 devices with 3 slots each, and it makes no replicas"
        for name in ("contiguous", "greedy")
    ]


def test_which_placement_to_save_must_be_clear(loads: ReplayLoads, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    asked = {"balancers": ["greedy"], "devices": [2, 4], "save": path}
    assert "ambiguous, 2 placements are replayed" in fault(lambda: replayed(loads, tmp_path / "run", **asked))
    path.write_text("mine")
    assert "the file exists" in fault(lambda: replayed(loads, tmp_path / "run", **(asked | {"devices": [2]})))
    assert path.read_text() == "mine"


def test_a_copy_beside_a_copy_is_saved_for_servers_and_noted(tmp_path: Path) -> None:
    loads = read_loads(skewed(tmp_path / "t.parquet", num_experts=4))
    run = replayed(loads, tmp_path / "run", balancers=["eplb"], devices=[2], replicas=3, save=tmp_path / "p.json")
    (note,) = (note for note in run.record.notes if "is listed twice on rank" in note)
    assert "Formats of servers allow that (moeprof convert); moeprof optimize refuses it, for which eplb-distinct" in note
    saved = Placement.read(tmp_path / "p.json")
    assert [len(rank) for rank in saved.layers["1"]] == [5, 5]
    assert any(len({*rank}) < 5 for ranks in saved.layers.values() for rank in ranks)
    PLACEMENT_FORMATS["sglang-location"].write(saved, tmp_path / "s.json", NO_FACTS)
    assert read_placement(tmp_path / "s.json", PlacementFacts(ranks=2)).layers["1"] == saved.layers["1"]


def test_prefill_of_a_log_is_one_step_and_has_no_step_left_to_validate_on(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 1], [0, 3], [0, 1]], prefill=[[1, 2], [1, 3]], layers=2)
    loads = read_loads(log)
    assert [matrix.num_steps for (matrix,) in loads.inputs.layers["prefill"]] == [1, 1]
    assert [matrix.num_steps for (matrix,) in loads.inputs.layers["decode"]] == [4, 4]
    run = replayed(loads, tmp_path / "run", devices=[2])
    assert [note for note in run.record.notes if note.startswith("prefill:")] == [
        "prefill: only one recorded step (layers: all); no step is left to validate on, so there is no placement"
    ]
    assert balance_results.phases(of_replay(run)) == ["decode"]


def test_by_itself_a_replay_tries_every_balancer_that_needs_no_nodes(loads: ReplayLoads, tmp_path: Path) -> None:
    run = replayed(loads, tmp_path / "run")
    assert run.record.balanced.balancers == [name for name in BALANCERS if name != "eplb-hierarchical"]
    assert run.record.balanced.devices == [2, 4, 8]


def nodes_of(path: Path, loads: ReplayLoads, folder: Path, **asked: object) -> list[set[int]]:
    """The experts on each of two nodes of two devices under `eplb-hierarchical` without copies, in layer 1."""
    replayed(loads, folder, balancers=["eplb-hierarchical"], devices=[4], nodes=2, replicas=0, save=path, **asked)
    ranks = Placement.read(path).layers["1"]
    return [{*ranks[0], *ranks[1]}, {*ranks[2], *ranks[3]}]


def test_experts_of_a_group_stay_on_one_node(loads: ReplayLoads, tmp_path: Path) -> None:
    """Low ids are hot, so that without groups the four of them are spread over both nodes."""
    alone = nodes_of(tmp_path / "alone.json", loads, tmp_path / "one")
    grouped = nodes_of(tmp_path / "grouped.json", loads, tmp_path / "other", groups=2)
    assert sorted(map(sorted, grouped)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(map(sorted, alone)) != sorted(map(sorted, grouped))
    pairs = nodes_of(tmp_path / "pairs.json", loads, tmp_path / "third", groups=4)
    assert all(({expert, expert + 1} <= pairs[0]) != ({expert, expert + 1} <= pairs[1]) for expert in (0, 2, 4, 6))


def test_groups_that_do_not_divide_the_experts_are_refused(loads: ReplayLoads, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--groups 3: 8 experts do not divide over them\nGive a divisor"):
        replayed(loads, tmp_path / "run", groups=3)
    assert not (tmp_path / "run").exists()


GROUPED = """
workload = "lm"
[model]
huggingface = "deepseek"
dtype = "float32"
dim = 64
[model.layers]
1 = { path = "layers.1.mlp.experts", experts = 8, expert_parameters = 10, expert_bytes = 40, groups = 2 }
3 = { path = "layers.3.mlp.experts", experts = 8, expert_parameters = 10, expert_bytes = 40, groups = 2 }
[gating]
top_k = 2
capacity_fraction = 1.0
[load]
batch_size = 1
sequence_length = 8
prompt_length = 4
decode_steps = 4
"""


def test_groups_are_those_of_the_router_of_the_runs_model(tmp_path: Path) -> None:
    (tmp_path / "grouped.toml").write_text(GROUPED)
    loads = read_loads(run_of_shape(tmp_path / "source", str(tmp_path / "grouped.toml")))
    assert loads.trace.groups == 2
    assert sorted(map(sorted, nodes_of(tmp_path / "p.json", loads, tmp_path / "run"))) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    run = Run.open(tmp_path / "run")
    assert run.record.balanced.groups == 2
