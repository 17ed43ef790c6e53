"""Presets are read as users write them, and what cannot work is refused in two lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import EVICTIONS, FORESIGHTS, ORDERS, PRESETS, Offloading, parsed


def test_presets_have_the_constants_of_their_papers() -> None:
    hobbit, m2cache = PRESETS["hobbit"], PRESETS["m2cache"]
    assert (hobbit.t1, hobbit.t2, hobbit.low) == (0.6, 0.9, ("int4",))  # arXiv 2411.01433: Mixtral
    assert 1 <= hobbit.depth <= 3
    assert (m2cache.low, m2cache.mix, m2cache.eviction) == (("int8", "int4"), (0.25, 0.25, 0.5), "atu")  # arXiv 2410.14740: 13B
    assert PRESETS["infmoe"].order == "johnson"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_from_its_own_text(name: str) -> None:
    assert parsed(PRESETS[name].text) == PRESETS[name] == parsed(name)


@given(
    st.builds(
        Offloading,
        name=st.just("hobbit"),
        per_layer=st.booleans(),
        low=st.just(("int8", "int2")),
        shares=st.just((0.5, 0.25, 0.25)),
        t1=st.floats(0, 0.5),
        t2=st.floats(0.5, 1),
        eviction=st.sampled_from(EVICTIONS),
        foresight=st.sampled_from(FORESIGHTS),
        depth=st.integers(1, 9),
        shuffled=st.booleans(),
        order=st.sampled_from(ORDERS),
    )
)
def test_all_choices_survive_their_text(choice: Offloading) -> None:
    assert parsed(choice.text) == choice


def test_settings_change_a_preset() -> None:
    changed = parsed("hobbit:t1=.5,depth=1,low=int8,weights=1:0:0:0,per-layer=yes")
    assert (changed.t1, changed.depth, changed.low, changed.weights, changed.per_layer) == (
        0.5,
        1,
        ("int8",),
        (1, 0, 0, 0),
        True,
    )
    assert changed.t2 == 0.9


def test_only_systems_that_never_use_low_precision_and_keep_the_routers_are_lossless() -> None:
    assert {name for name, one in PRESETS.items() if one.lossless} == {"on-demand", "infmoe", "monde", "sida"}
    assert not parsed("sida:mode=bypass").lossless
    assert parsed("sida:mode=bypass,cold=yes").full_precision
    assert parsed("hobbit:t1=1,t2=1").lossless


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hobit", "preset hobit: not known"),
        ("hobbit:t3=1", "preset hobbit: it has no setting 't3'"),
        ("hobbit:depth=two", "preset hobbit: depth cannot be 'two'"),
        ("hobbit:per-layer=maybe", "preset hobbit: per-layer cannot be 'maybe'"),
        ("hobbit:t1=.9,t2=.6", "preset hobbit: t2=0.6 is smaller than t1=0.9"),
        ("hobbit:t1=nan", "preset hobbit: t1 has a value outside 0 to 1"),
        ("hobbit:low=int3", "preset hobbit: low=int3 is not a packed precision"),
        ("hobbit:low=,shares=1", "preset hobbit: t1=0.6 needs a low precision"),
        ("hobbit:shares=.5:.4", "preset hobbit: shares=0.5:0.4 does not divide 1 among 2 precisions"),
        ("hobbit:weights=1:1:0:0", "preset hobbit: weights are not four that add up to 1"),
        ("hobbit:depth=0", "preset hobbit: depth=0 is not a number of layers"),
        ("m2cache:mix=.5:.5", "preset m2cache: mix=0.5:0.5 does not divide 1 among 3 precisions"),
        ("hobbit:cold=yes", "preset hobbit: cold experts have the model's own precision only"),
        ("infmoe:order=random", "preset infmoe: order=random is not known"),
        ("sida:mode=guess", "preset sida: mode=guess is not known"),
        ("sida:predicted=0", "preset sida: predicted=0 is not a number of experts"),
        (
            "sida:mode=bypass,foresight=lookahead",
            "preset sida: mode=bypass: a predictor decides in place of the routers, and foresight=lookahead is no predictor",
        ),
        (
            "on-demand:mode=bypass",
            "preset on-demand: mode=bypass: a predictor decides in place of the routers, and there is no predictor",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(text: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        parsed(text)
    assert refused.value.what == what
    assert refused.value.remedy.endswith(".")
