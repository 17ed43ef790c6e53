"""What capturing costs: a hook by itself, and the hooks of a decode step against the step, in CPU time.

The model is a Qwen3-MoE at a quarter of the width of Qwen3-30B-A3B (D 512, F 192, E 128, K 8) with 4 layers and random weights; a step
decodes one token after a prompt in the cache. Hooked and plain calls take turns, so that drifts of the machine affect both alike.

    python benchmarks/hook_cost.py [--calls N] [--repeats N] [--steps N] [--prompt N] [--threads N]
"""

import argparse
import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from time import process_time_ns
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen3MoeConfig, Qwen3MoeForCausalLM

from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.sites import Site, find_sites
from moeprof.instrument.timing import collector_paused

CALL_LIMIT_US, STEP_LIMIT = 4.0, 0.03
WIDTH, TOP_K = 512, 8


class NoExperts(nn.Module):
    """Called like experts, and returns at once."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config

    def forward(self, hidden_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> None:
        """Computes nothing."""


def main() -> None:
    """Prints the cost of a hook and of the hooks of a step, beside their limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("calls", 1_000), ("repeats", 100), ("steps", 200), ("prompt", 128), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = quarter_width()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(find_sites(model))} layers with experts")
    with torch.inference_mode(), collector_paused():
        report_call(find_sites(model)[0], arguments.calls, arguments.repeats)
        report_step(model, arguments.steps, arguments.prompt)


def quarter_width() -> Qwen3MoeForCausalLM:
    """The model, with seeded weights."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=4096,
        hidden_size=WIDTH,
        moe_intermediate_size=192,
        num_experts=128,
        num_experts_per_tok=TOP_K,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=128,
    )
    return Qwen3MoeForCausalLM(config).eval()


def report_call(site: Site, calls: int, repeats: int) -> None:
    """Nanoseconds of a call of no experts, plain and hooked: the best of several repeats each, taken in turns."""
    module = NoExperts(site.experts.config)
    inputs = torch.zeros(1, WIDTH), torch.zeros(1, TOP_K, dtype=torch.long), torch.zeros(1, TOP_K)

    def play() -> None:
        for _ in range(calls):
            module(*inputs)

    sites = [dataclasses.replace(site, module=module, experts=module)]
    plain, hooked = zip(*(each_way(play, sites) for _ in range(repeats)), strict=True)
    cost_us = (min(hooked) - min(plain)) / calls / 1e3
    print(
        f"one call: plain {min(plain) / calls / 1e3:.2f} us, hooked {min(hooked) / calls / 1e3:.2f} us (best of {repeats} x {calls:,}): "
        f"the hook takes {cost_us:.2f} us, {verdict(cost_us, CALL_LIMIT_US)} (limit {CALL_LIMIT_US} us)"
    )


def report_step(model: Qwen3MoeForCausalLM, steps: int, prompt: int) -> None:
    """Milliseconds of a step, plain and hooked, and the median of the ratios of each turn."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.arange(prompt)[None], cache=cache)
    token_BL = torch.tensor([[7]])

    def play() -> None:
        model(input_ids=token_BL, cache=cache)
        cache.crop(-1)

    sites = find_sites(model)
    for _ in range(10):
        play()
    plain, hooked = zip(*(each_way(play, sites, first_hooked=turn % 2 == 1) for turn in range(steps)), strict=True)
    part = median(with_hooks / without for without, with_hooks in zip(plain, hooked, strict=True)) - 1
    print(
        f"one step after {prompt} tokens: plain {median(plain) / 1e6:.2f} ms, hooked {median(hooked) / 1e6:.2f} ms (medians of {steps}): "
        f"hooks add {part:.2%}, {verdict(part, STEP_LIMIT)} (limit {STEP_LIMIT:.0%})"
    )


def each_way(play: Callable[[], Any], sites: list[Site], *, first_hooked: bool = False) -> tuple[int, int]:
    """CPU time of one play without and one with the hooks."""
    times = {}
    for is_hooked in (first_hooked, not first_hooked):
        with Capture(sites, forget) if is_hooked else nullcontext():
            started = process_time_ns()
            play()
            times[is_hooked] = process_time_ns() - started
    return times[False], times[True]


def forget(call: Call) -> None:
    """What a recorder does costs extra."""


def verdict(value: float, limit: float) -> str:
    """Whether it is within its limit."""
    return "within" if value <= limit else "ABOVE"


if __name__ == "__main__":
    main()
