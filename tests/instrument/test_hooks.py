"""A hook is called behind each of its modules for as long as its block runs, and never again."""

import pytest
import torch
from torch import Tensor, nn

from moeprof.instrument.hooks import hooked


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_it_sees_every_module_with_its_input_and_output_in_order() -> None:
    one, other = Doubling(), Doubling()
    seen: list[tuple[nn.Module, float, float]] = []
    with hooked([one, other], lambda module, inputs, output: seen.append((module, inputs[0].item(), output.item()))):
        assert other(one(torch.tensor(1.0))).item() == 4.0
    assert seen == [(one, 1.0, 2.0), (other, 2.0, 4.0)]


def test_what_it_returns_takes_the_place_of_the_output() -> None:
    one = Doubling()
    with hooked([one], lambda module, inputs, output: output + 1):
        assert one(torch.tensor(1.0)).item() == 3.0


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_gone_afterwards_even_after_an_error(fails: bool) -> None:
    one, calls = Doubling(), list[int]()
    try:
        with hooked([one], lambda *_: calls.append(1)):
            one(torch.tensor(1.0))
            if fails:
                raise KeyError
    except KeyError:
        pass
    one(torch.tensor(1.0))
    assert calls == [1]
    assert not one._forward_hooks
