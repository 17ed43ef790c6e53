"""The text of `[routing] source`: each form read exactly, everything else refused with the forms."""

from pathlib import Path

import pytest

from moeprof.records.recipe.routing_source import RoutingSource, parse_routing_source


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("model", RoutingSource("model")),
        ("uniform", RoutingSource("uniform")),
        ("uniform:seed=7", RoutingSource("uniform", seed=7)),
        ("zipf:1.2", RoutingSource("zipf", 1.2)),
        ("zipf:0", RoutingSource("zipf", 0.0)),
        ("zipf:1.2,sorted,sticky=0.9,seed=3", RoutingSource("zipf", 1.2, sorted=True, sticky=0.9, seed=3)),
        ("zipf:1.2,seed=3,sorted", RoutingSource("zipf", 1.2, sorted=True, seed=3)),
        ("trace:runs/a/routing", RoutingSource("trace", path=Path("runs/a/routing"))),
        ("trace:a:b,c=d", RoutingSource("trace", path=Path("a:b,c=d"))),
    ],
)
def test_each_form_is_read(text: str, source: RoutingSource) -> None:
    assert parse_routing_source(text) == source


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "Model",
            "model:x",
            "trace:",
            "trace",
            "random",
            "uniform:sorted",
            "uniform:seed",
            "uniform:seed=x",
            "uniform:seed=-1",
        ),
        *("zipf", "zipf:", "zipf:x", "zipf:-1", "zipf:nan", "zipf:inf", "zipf:1.2,", "zipf:1.2,hot", "zipf:1.2,seed=1.5"),
        *("zipf:1.2,seed=1,seed=1", "zipf:1.2,sticky=1.1", "zipf:1.2,sticky=nan", "zipf:1.2,sorted=yes", "zipf:1.2,sticky"),
    ],
)
def test_everything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be one of model, uniform\[:sticky=P\]\[,seed=N\], zipf:S") as caught:
        parse_routing_source(text)
    assert repr(text) in str(caught.value)
