"""The recipe of a Hugging Face model says what nobody chose."""

from pathlib import Path

import pytest

from moeprof.cli.options import resolved_recipes
from tests.huggingface.small_models import saved, small_model


@pytest.mark.parametrize(
    ("overrides", "expected"), [([], 1.25 * 2 / 8), (["load.batch_size=2"], 0.3125), (["gating.capacity_fraction=1.0"], 1.0)]
)
def test_capacity_is_a_quarter_above_the_mean_load_unless_it_is_given(
    overrides: list[str], expected: float, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", small_model("mixtral"))
    (recipe,) = resolved_recipes([], overrides, [], model=str(folder))
    assert recipe.gating.top_k == 2
    assert recipe.gating.capacity_fraction == expected
