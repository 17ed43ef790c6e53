"""Which balancers compete with each other, and which one is named if several reach the same load."""

from pathlib import Path

import pytest

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.choice import least, makes_copies
from moeprof.analysis.run_metrics import of_replay
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.studies.replay.logs import route_log


def test_of_loads_that_differ_by_rounding_the_simplest_balancer_is_named() -> None:
    tied = {"anti-correlation": 1 - 0.0990990990990992, "round-robin": 1 - 0.09909909909909909}
    assert least(tied) == "round-robin"
    assert least(tied | {"contiguous": 1 - 0.09909909909909914}) == "contiguous"
    assert least({"eplb": 0.3, "mean-square": 0.3, "greedy": 0.3}) == "greedy", "in the order of the registry"
    assert least({"round-robin": 0.3 * (1 + 1e-8), "greedy": 0.3}) == "greedy", "more than rounding"
    assert least({}) is None


def test_without_a_spare_slot_a_balancer_makes_no_copies_and_competes_with_those_that_never_do(tmp_path: Path) -> None:
    log = route_log(tmp_path / "a.route.csv", [[0, 1]] * 40, layers=1, experts=8)
    for replicas, found in ((0, ["eplb"]), (1, [])):
        asked = PlacementOptions(balancers=["eplb"], devices=[3, 4], replicas=replicas)
        results = of_replay(replay_placements(read_loads(log), asked, tmp_path / str(replicas)))
        assert makes_copies(results.record.balanced, "eplb", 4) is (replicas > 0)
        assert makes_copies(results.record.balanced, "eplb", 3), "nine slots for eight experts"
        assert not makes_copies(results.record.balanced, "greedy", 3)
        assert balance_results.candidates(results, "decode", 4, copies=False) == found
        best = balance_results.best(results, "decode", 4, copies=not found)
        assert best is not None
        assert (best[0], best[1].value) == ("eplb", pytest.approx(0.5)), "experts 0 and 1 on one device, then on two"
