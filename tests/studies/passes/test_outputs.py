"""Outputs of whole models under two dispatches: what is compared is what the traces say, and what is broken is caught."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.run.run import Run
from moeprof.studies.passes.time import measure_time

from ..runs import DYNAMIC, TUTEL, Micro, early_ends, spoil, studied, values, with_weights

Place = tuple[int, int]
"""Sequence and position."""

PHASES = [("lm", "score"), ("lm", "decode"), ("mt", "encode"), ("mt", "decode")]
DEEP = ("model.moe_every=1", "model.decoder_layers=3")
"""Losses in one layer are seen by the next."""
DEEP_MT = (*DEEP, "model.encoder_layers=3", "load.batch_size=8", "load.batches=1", "load.decode_steps=6")


def end_to_end(run: Run, metric: str, phase: str, variant: Variant = DYNAMIC) -> float:
    return values(run, metric, phase=phase, variant=variant.label)[()]


# Where nothing is lost


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("variant", [DYNAMIC, TUTEL], ids=lambda variant: variant.label)
@pytest.mark.parametrize("name", ["lm", "mt"])
def test_where_nothing_is_dropped_all_tokens_are_compared_and_equal(
    micro: Micro, tmp_path: Path, name: str, variant: Variant
) -> None:
    run = studied(micro(name), tmp_path / "run", "gating.capacity_fraction=1.0", *DEEP, variants=(STATIC, variant))
    assert run.record.valid
    for phase in run.record.recipe.phases:
        num_tokens = len(tokens(run, phase))
        assert end_to_end(run, "output_tokens_compared", phase, variant) == num_tokens > 0
        assert end_to_end(run, "output_tokens_lost", phase, variant) == 0
        assert end_to_end(run, "output_tokens_differing", phase, variant) == 0
        assert end_to_end(run, "routing_flips", phase, variant) == 0
        assert end_to_end(run, "output_max_abs_diff", phase, variant) < 1e-4
        by_layer = values(run, "output_tokens_compared", "layer", phase=phase, variant=variant.label)
        assert by_layer == {(layer,): num_tokens for layer in ["", *run.record.recipe.moe_layers(phase)]}
        assert phase == "encode" or end_to_end(run, "token_agreement", phase, variant) == 1.0


@pytest.mark.usefixtures("device")
def test_an_encoder_predicts_no_token_that_could_agree(micro: Micro, tmp_path: Path) -> None:
    run = studied(micro("mt"), tmp_path / "run", "load.phases=['encode']")
    assert not values(run, "token_agreement", "phase", "variant")


@pytest.mark.usefixtures("device")
def test_neither_the_baseline_nor_the_dense_twin_is_held_against_anything(micro: Micro, tmp_path: Path) -> None:
    run = studied(micro("lm"), tmp_path / "run", variants=(STATIC, DENSE, TUTEL, DYNAMIC))
    assert {variant for (variant,) in values(run, "output_tokens_compared", "variant", phase="score")} == {
        "tutel",
        "dynamic+loop",
    }


# Where something is lost: the traces say what could be compared


def first_batches(run: Run, phase: str) -> set[int]:
    """Sequences of the first batch of every domain: those that are compared."""
    rows = rows_of(run, phase, STATIC)
    size = run.record.recipe.load.batch_size
    batches: dict[str, int] = {}
    for row in rows:
        batches[row["domain"]] = min(batches.get(row["domain"], 2**30), row["sequence"] // size)
    return {row["sequence"] for row in rows if row["sequence"] // size == batches[row["domain"]]}


def rows_of(run: Run, phase: str, variant: Variant) -> list[dict[str, object]]:  # type: ignore[type-arg]
    trace = run.trace(phase, variant.label)
    assert trace is not None
    return trace.table.to_pylist()  # type: ignore[no-any-return]


def tokens(run: Run, phase: str) -> set[Place]:
    compared = first_batches(run, phase)
    return {(row["sequence"], row["position"]) for row in rows_of(run, phase, STATIC) if row["sequence"] in compared}


def lost(run: Run, phase: str) -> set[Place]:
    """Tokens that lost a choice in any layer, under either contender."""
    return {
        (row["sequence"], row["position"])
        for variant in (STATIC, DYNAMIC)
        for row in rows_of(run, phase, variant)
        if row["dropped"]
    }


def sees_nothing_lost(run: Run, phase: str) -> set[Place]:
    """Tokens without a loss in what they see: their own past; the whole of a source."""
    losses = lost(run, phase)
    sources = {sequence for sequence, _ in lost(run, "encode")} if run.record.recipe.workload == "mt" else set()
    if phase == "encode":
        return {place for place in tokens(run, phase) if place[0] not in sources}
    return {
        (sequence, position)
        for sequence, position in tokens(run, phase)
        if sequence not in sources and not any(other == sequence and earlier <= position for other, earlier in losses)
    }


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("name", "phase", "sets"),
    [
        ("lm", "score", ("gating.capacity_fraction=0.6", *DEEP)),
        ("lm", "score", ("gating.capacity_fraction=0.75", *DEEP)),
        ("mt", "encode", ("gating.capacity_fraction=0.6", *DEEP_MT)),
        ("mt", "decode", ("gating.capacity_fraction=0.7", *DEEP_MT)),
        ("mt", "decode", ("gating.capacity_fraction=0.75", *DEEP_MT)),
    ],
)
def test_exactly_the_tokens_that_see_a_loss_are_left_out(
    micro: Micro, tmp_path: Path, name: str, phase: str, sets: tuple[str, ...]
) -> None:
    run = studied(micro(name), tmp_path / "run", *sets)
    assert run.record.valid
    assert end_to_end(run, "routing_flips", phase) == 0
    everything, compared = tokens(run, phase), sees_nothing_lost(run, phase)
    assert 0 < len(compared) < len(everything)
    assert end_to_end(run, "output_tokens_compared", phase) == len(compared)
    assert end_to_end(run, "output_tokens_lost", phase) == len(everything) - len(compared)
    assert end_to_end(run, "output_tokens_differing", phase) == 0


@pytest.mark.usefixtures("device")
def test_words_behind_an_end_are_no_tokens_to_be_compared(micro: Micro, tmp_path: Path) -> None:
    ending = with_weights(micro("mt"), tmp_path / "ending.safetensors", early_ends)
    run = studied(micro("mt"), tmp_path / "run", "load.batch_size=12", "load.batches=1", "load.decode_steps=6", ending)
    everything = tokens(run, "decode")
    assert 3 * 12 < len(everything) < 3 * 12 * 6
    assert end_to_end(run, "output_tokens_compared", "decode") == len(everything)
    assert end_to_end(run, "token_agreement", "decode") == 1.0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_in_a_layer_the_tokens_that_lost_something_right_there_are_left_out(
    micro: Micro, tmp_path: Path, name: str, phase: str
) -> None:
    """The layer's inputs are the baseline's own, whatever was lost before."""
    run = studied(micro(name), tmp_path / "run", "gating.capacity_fraction=0.5", *DEEP)
    chosen, kept = first_batches(run, phase), dict[str, set[Place]]()
    for row in rows_of(run, phase, STATIC):
        if row["sequence"] in chosen:
            kept.setdefault(str(row["layer"]), set()).add((row["sequence"], row["position"]))  # type: ignore[arg-type]
    for row in rows_of(run, phase, STATIC):
        if row["dropped"]:
            kept[str(row["layer"])].discard((row["sequence"], row["position"]))  # type: ignore[arg-type]
    found = values(run, "output_tokens_compared", "layer", phase=phase, variant=DYNAMIC.label)
    assert {layer: count for (layer,), count in found.items() if layer} == {
        layer: len(places) for layer, places in kept.items()
    }
    assert not any(values(run, "output_tokens_differing", "layer", phase=phase, variant=DYNAMIC.label).values())


@pytest.mark.usefixtures("device")
def test_statement_3_tokens_that_see_a_loss_do_differ(micro: Micro, tmp_path: Path) -> None:
    """What is left out is left out for a reason: with a small capacity not all next tokens agree."""
    run = studied(micro("lm"), tmp_path / "run", "gating.capacity_fraction=0.1", *DEEP, "load.batch_size=8")
    assert end_to_end(run, "token_agreement", "score") < 1
    assert run.record.valid


# What is broken is caught

BROKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "a hundredth more": lambda y_TD: y_TD + 0.01,  # which the last norm takes away again: only the layers show it
    "rows exchanged": lambda y_TD: y_TD.flip(0),
    "one row of many": lambda y_TD: y_TD * (torch.arange(len(y_TD)) != 0)[:, None],
}
POISONED: dict[str, Callable[[Tensor], Tensor]] = {
    "no number": lambda y_TD: y_TD * float("nan"),
    "too large": lambda y_TD: y_TD / 0,
}


DIFFER = "outputs of dynamic+loop differ from those of static on tokens without a drop"
NOT_FINITE = "outputs are not finite under dynamic+loop: "


def assert_caught(run: Run, phases: Sequence[str], why: str = DIFFER) -> None:
    assert not run.record.valid
    for phase, reason in zip(phases, run.record.reasons, strict=True):
        assert reason.startswith(f"{phase}: {why}")
        assert sum(values(run, "output_tokens_differing", "layer", phase=phase, variant=DYNAMIC.label).values()) > 0
    assert not [metric for metric in set(run.metrics["metric"]) if metric.startswith("speedup")]
    assert values(run, "throughput", "variant", phase=phases[0])  # timed it was all the same


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", ["lm", "mt"])
def test_a_broken_dispatch_makes_the_run_invalid_and_no_speed_up_is_told(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, broken: str
) -> None:
    spoil(monkeypatch, "dynamic", BROKEN[broken])
    run = studied(micro(name), tmp_path / "run", "gating.capacity_fraction=1.0", passes=[measure_time])
    assert_caught(run, run.record.recipe.phases)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("poison", POISONED)
def test_outputs_that_are_no_numbers_are_no_equal_outputs(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    spoil(monkeypatch, "dynamic", POISONED[poison])
    run = studied(micro("lm"), tmp_path / "run", "gating.capacity_fraction=1.0", passes=[measure_time])
    assert_caught(run, ("score", "decode"), NOT_FINITE)
    # 3 domains, 2 batches of 2 x 12 tokens each
    assert run.record.reasons[0] == f"score: {NOT_FINITE}144 tokens, first in layer 1, step 0"
    assert not values(run, "output_max_abs_diff", "phase", "variant", "layer")
    assert end_to_end(run, "token_agreement", "score") == 0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("poison", POISONED)
def test_numbers_that_overflow_before_a_router_end_the_run_there(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """What an encoder spoils, the decoder's first router sees."""
    spoil(monkeypatch, "dynamic", POISONED[poison])
    with pytest.raises(MoeprofError, match=r"layer dec\.1, decode step 0: the router's softmax is not finite"):
        studied(micro("mt"), tmp_path / "run", passes=[measure_time])
    left = Run.open(tmp_path / "run")
    assert left.record.reasons == ["failed: layer dec.1, decode step 0: the router's softmax is not finite"]
    assert not values(left, "speedup_equal_batch", "variant", "category", phase="encode")


@pytest.mark.usefixtures("device")
def test_a_dispatch_that_is_broken_only_for_what_was_lost_anyway_is_none(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lose the same choices, so that both are left with the same doubts: nothing is held against either."""
    run = studied(micro("lm"), tmp_path / "run", "gating.capacity_fraction=0.3", *DEEP, variants=(STATIC, TUTEL))
    assert run.record.valid
    assert end_to_end(run, "output_tokens_lost", "score", TUTEL) > 0
    assert end_to_end(run, "token_agreement", "score", TUTEL) == 1.0


@pytest.mark.usefixtures("device")
def test_where_not_one_token_could_be_compared_no_speed_up_is_told(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slot for the 144 tokens of a step: every token loses a choice, so that nobody can tell right from wrong."""
    sets = ("gating.capacity_fraction=0.001", "load.batch_size=12", "load.phases=['score']")
    spoil(monkeypatch, "dynamic", lambda y_TD: 3 * y_TD)
    run = studied(micro("lm"), tmp_path / "run", *sets, passes=[measure_time])
    assert set(values(run, "output_tokens_compared", "layer", phase="score", variant=DYNAMIC.label).values()) == {0}
    assert not values(run, "speedup_equal_batch", "variant", "category", phase="score")
    assert not run.record.valid
