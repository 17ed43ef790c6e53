"""The tracker of live bytes against torch's own events, against arithmetic, and on tensors without memory."""

import itertools
from collections.abc import Callable, Iterator
from math import ceil

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from moeprof.analysis.model_size import static_layer_bytes, weight_bytes
from moeprof.instrument import memory
from moeprof.instrument.memory import LiveBytes, MemoryTracker
from moeprof.instrument.probe import active, region
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model, make_model
from moeprof.moe.experts import Experts
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.moe.router import Router
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import MEMORY_SCHEMA
from moeprof.workloads.episodes import Episode
from moeprof.workloads.registry import make_workload

MIB = 2**20


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def ticking() -> Callable[[], int]:
    return itertools.count().__next__


def weightless() -> nn.Module:
    return nn.Linear(1, 1, bias=False)


def floats(size_mib: float) -> torch.Tensor:
    return torch.empty(int(size_mib * MIB) // 4)


# The sums


def test_the_peak_is_the_most_that_was_live_at_once() -> None:
    live = LiveBytes(ticking())
    for size_bytes in (100, 50, -100, 30, -50):
        live.add("activations", size_bytes)
    live.leave()
    live.enter("head", "")
    assert live.peak.total == 150
    assert live.total == 30


def test_a_region_is_charged_with_what_it_inherits_and_never_with_what_came_later() -> None:
    live = LiveBytes(ticking())
    live.add("activations", 10)
    live.enter("gate", "1")
    live.enter("experts", "1")
    live.add("dispatch_buffers", 5)
    live.enter("other", "")
    assert dict(live.by_region) == {"other": 10, "gate": 10, "experts": 15}
    assert dict(live.by_category) == {"activations": 10, "dispatch_buffers": 5}


def test_the_series_has_the_peak_and_the_end_of_every_visit() -> None:
    live = LiveBytes(ticking())
    live.enter("experts", "3")
    live.add("dispatch_buffers", 8)
    live.add("dispatch_buffers", -6)
    live.enter("other", "")
    assert [(moment.region, moment.layer, moment.total) for moment in live.course] == [("experts", "3", 8), ("experts", "3", 2)]


def test_a_long_series_is_thinned_and_keeps_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_VISITS", 10)
    live = LiveBytes(ticking())
    for size_bytes in (*range(1, 78), 1000, *range(78, 300)):
        live.enter("gate", "1")
        live.add("activations", size_bytes)
        live.add("activations", -size_bytes)
        live.enter("other", "")
    assert live.num_visits == 300
    assert 5 <= len(live.visits) <= 10
    assert max(moment.total for moment in live.course) == live.peak.total == 1000
    assert [moment.time_ns for moment in live.course] == sorted(moment.time_ns for moment in live.course)


# The tracker


def test_views_share_one_storage_and_a_storage_lives_as_long_as_any_of_them() -> None:
    tracker = MemoryTracker(weightless())
    with tracker.observing():
        whole = floats(1)
        part = whole.view(2, -1)[0]
        del whole
        assert tracker.bytes.total == MIB
        del part
        assert tracker.bytes.total == 0
    assert tracker.bytes.peak.total == MIB


def test_a_tensor_from_before_is_no_allocation_and_writing_in_place_is_none() -> None:
    before, tracker = floats(1), MemoryTracker(weightless())
    with tracker.observing():
        view = before.view(-1)[:3]
        view.zero_()
        torch.add(before, 1, out=before)
    assert tracker.bytes.peak.total == 0


def test_a_storage_that_is_resized_counts_with_its_new_size() -> None:
    tracker = MemoryTracker(weightless())
    with tracker.observing():
        grown = floats(1)
        grown.resize_(MIB)
        assert tracker.bytes.total == 4 * MIB
        del grown
    assert tracker.bytes.total == 0


def test_what_is_freed_after_observing_is_still_noticed() -> None:
    tracker = MemoryTracker(weightless())
    with tracker.observing():
        kept = floats(1)
    assert tracker.bytes.total == MIB
    del kept
    assert tracker.bytes.total == 0


def test_regions_decide_what_an_allocation_is_for() -> None:
    tracker, kept = MemoryTracker(weightless()), []
    with tracker.observing():
        for name in ("attention", "gate", "dispatch", "experts", "combine", "expert_load"):
            with region(name, "1"):
                kept.append(floats(1))
    assert dict(tracker.bytes.live) == {"activations": 2 * MIB, "dispatch_buffers": 3 * MIB, "expert_slots": MIB}


def test_floating_point_tensors_that_survive_the_beginning_are_keys_and_values() -> None:
    tracker = MemoryTracker(weightless())
    with tracker.observing():
        cache, tokens = floats(2), torch.zeros(10, dtype=torch.int64)
        gone = floats(8)
        del gone
    tracker.begin()
    assert dict(tracker.bytes.peak.live) == {"activations": 80, "kv_cache": 2 * MIB}
    del cache, tokens
    assert tracker.bytes.total == 0


def test_the_probe_and_the_mode_are_gone_afterwards_even_after_an_error() -> None:
    tracker = MemoryTracker(weightless())
    with pytest.raises(KeyError), tracker.observing(), region("gate", "1"):
        raise KeyError
    assert active() is None
    assert (tracker.bytes.region, tracker.bytes.layer) == ("other", "")
    floats(1)
    assert tracker.bytes.total == 0


# Whole models


def played(recipe: Recipe, phase: str) -> tuple[Model, Episode]:
    model, episode = build_model(recipe), make_workload(recipe).episodes(phase)[0]
    episode.settle(model)
    return model, episode


def events_peak(play: Callable[[], object]) -> int:
    """Most bytes live at once by torch.profiler's own `[memory]` events."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        play()
    results = profiler.profiler.kineto_results  # type: ignore[union-attr]
    events = sorted((event for event in results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


@pytest.mark.parametrize(("name", "phase"), [("lm-tiny", "score"), ("mt-tiny", "encode"), ("mt-tiny", "decode")])
def test_the_peak_agrees_with_the_profilers_memory_events(name: str, phase: str) -> None:
    model, episode = played(load_recipe(name, overrides=["load.decode_steps=4"]), phase)
    tracker = MemoryTracker(model)
    with tracker.observing():
        play = episode.ready(model)
    tracker.begin()
    before = tracker.bytes.total
    with tracker.observing():
        play()
    assert tracker.bytes.peak.total == pytest.approx(before + events_peak(play), rel=0.02)


@pytest.mark.parametrize("name", ["lm-tiny", "mt-tiny"])
@pytest.mark.parametrize("dense", [False, True])
def test_static_memory_is_the_parameters(name: str, dense: bool) -> None:
    recipe = load_recipe(name)
    model = make_model(recipe, dense=dense)
    expected = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert MemoryTracker(model).static_bytes == expected == weight_bytes(recipe.model, dense=dense)


def test_the_cache_of_a_decoder_is_what_its_shape_dictates() -> None:
    recipe = load_recipe("mt-tiny", overrides=["load.decode_steps=4"])
    model, episode = played(recipe, "decode")
    tracker = MemoryTracker(model)
    with tracker.observing():
        play = episode.ready(model)
    tracker.begin()
    with tracker.observing():
        play()
    layers, batch, width = recipe.model.decoder_layers, recipe.load.batch_size, recipe.model.dim
    source = make_workload(recipe).batches[0].tokens_BL.shape[1]  # type: ignore[attr-defined]
    assert tracker.bytes.by_category["kv_cache"] == 2 * layers * batch * (4 + source) * width * 4


def static_buffer_bytes(tokens: int, experts: int, slots: int, dim: int, ffn_dim: int, choices: int, element: int) -> int:
    """By hand: what static gating holds at its fullest, from (S, E, c, D, F) and k."""
    mask = weights = tokens * experts * slots * element
    rows = outputs = experts * slots * dim * element
    hidden = experts * slots * ffn_dim * element
    places = cells = 8 * tokens * choices
    drops = tokens * choices
    sent = weights + rows + drops
    return max(
        sent + mask + places + cells, sent + 2 * hidden, sent + hidden + outputs, sent + outputs + tokens * dim * element
    )


@pytest.mark.parametrize(
    ("tokens", "experts", "fraction", "dim", "ffn_dim", "dtype"),
    [
        (768, 32, 0.8, 128, 192, "float32"),  # the mask is the largest
        (64, 16, 0.25, 32, 256, "float32"),  # both hidden buffers are
        (64, 16, 0.25, 128, 16, "float32"),  # the outputs are
        (61, 4, 0.3, 64, 8, "float32"),
        (96, 8, 1.0, 32, 64, "bfloat16"),
    ],
)
def test_the_peak_of_static_gating_is_what_its_shapes_dictate(
    tokens: int, experts: int, fraction: float, dim: int, ffn_dim: int, dtype: str
) -> None:
    changes = {"dim": dim, "ffn_dim": ffn_dim, "experts": experts, "dtype": dtype}
    sets = [f"model.{key}={value!r}".replace("'", '"') for key, value in changes.items()]
    recipe = load_recipe("lm-tiny", overrides=[*sets, f"gating.capacity_fraction={fraction}"])
    layer = MoELayer("1", recipe).to(getattr(torch, dtype))
    layer.router.float()
    tracker = MemoryTracker(layer)
    x_TD = torch.randn(tokens, dim, dtype=getattr(torch, dtype))
    with tracker.observing():
        y_TD = layer(x_TD, Step(None))
    element = 4 if dtype == "float32" else 2
    expected = static_buffer_bytes(tokens, experts, ceil(round(fraction * tokens, 9)), dim, ffn_dim, 2, element)
    assert tracker.bytes.by_category["dispatch_buffers"] == expected
    assert static_layer_bytes(recipe, tokens) == expected
    assert y_TD.shape == x_TD.shape


# Without memory


def faked(model: Model, *, share: int = 1) -> Model:
    """Fake parameters in the place of the meta ones; with `share` a device's part of the experts, and routers in 2 bytes."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            shape = list(parameter.shape)
            if isinstance(module, Experts):
                shape[0] //= share
            dtype = torch.bfloat16 if share > 1 and isinstance(module, Router) else parameter.dtype
            setattr(module, name, nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False))
    return model


def scored(model: Model, recipe: Recipe, device: str) -> MemoryTracker:
    tracker = MemoryTracker(model)
    tokens_BL = torch.zeros(recipe.load.batch_size, recipe.load.sequence_length, dtype=torch.int64, device=device)
    with tracker.observing():
        model(tokens_BL, Step(None))
    return tracker


def test_fake_tensors_give_the_bytes_of_real_ones() -> None:
    recipe = load_recipe("lm-tiny")
    real, model = scored(build_model(recipe), recipe, "cpu"), make_model(recipe)
    with FakeTensorMode():
        fake = scored(faked(model), recipe, "cpu")
    assert fake.at_peak() == real.at_peak()
    assert fake.bytes.peak.region == real.bytes.peak.region == "dispatch"


def test_meta_tensors_give_the_bytes_of_real_ones() -> None:
    recipe = load_recipe("lm-tiny")
    meta, real = scored(make_model(recipe), recipe, "meta"), scored(build_model(recipe), recipe, "cpu")
    assert meta.at_peak() == real.at_peak()


@pytest.mark.parametrize(("name", "gib"), [("lm-52b", 12.49), ("mt-54b", 17.49)])
def test_the_papers_models_need_the_papers_static_memory_on_8_devices(name: str, gib: float) -> None:
    model = make_model(load_recipe(name))
    with FakeTensorMode():
        tracker = MemoryTracker(faked(model, share=8))
    assert tracker.static_bytes / 2**30 == pytest.approx(gib, abs=0.005)


def test_the_papers_language_model_is_walked_through_on_fake_tensors() -> None:
    recipe = load_recipe("lm-52b")
    model = make_model(recipe)
    with FakeTensorMode():
        tracker = scored(faked(model), recipe, "cpu")
    assert tracker.bytes.by_category["dispatch_buffers"] == static_layer_bytes(recipe, 4096)
    assert len(moe_layers(model)) == 12


# The table


def test_the_table_adds_up_to_the_peak_and_its_times_never_fall() -> None:
    recipe = load_recipe("lm-tiny")
    tracker = scored(build_model(recipe), recipe, "cpu")
    table = tracker.table("score", "static")
    assert table.schema == MEMORY_SCHEMA
    frame = table.to_pandas()
    totals = frame.groupby(["time_ns", "layer", "region"])["bytes"].sum()
    assert totals.max() == tracker.static_bytes + tracker.bytes.peak.total == sum(tracker.at_peak().values())
    assert frame["time_ns"].is_monotonic_increasing
    assert set(frame["category"]) == {"weights", "activations", "dispatch_buffers"}
    assert {"embed", "attention", "dense_ffn", "gate", "dispatch", "experts", "combine", "head"} <= set(frame["region"])
