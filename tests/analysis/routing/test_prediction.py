"""Coverage by sets that never change, and by the prompt, against plain loops."""

from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing.load_matrix import layer_matrices
from moeprof.analysis.routing.prediction import predicted_sizes, prompt_rows, static_rows
from moeprof.analysis.routing.token_choices import phase_tokens
from moeprof.records.metrics.registry import MetricRow
from tests.analysis.routing.test_distinct import TOKEN, Token, flat, tokens_of
from tests.analysis.traces import Row, trace_of


def at(found: list[MetricRow], category: str, size: int, layer: str = "1") -> float:
    """The coverage at an address."""
    (value,) = [
        row.value
        for row in found
        if (row.metric, row.category, row.layer, row.point) == ("step_coverage", category, layer, f"experts={size}")
    ]
    return value


def static(rows: list[Row], experts: int = 6) -> list[MetricRow]:
    """The rows of sets that never change."""
    trace = trace_of(rows, num_experts=experts)
    first_uses = {tokens.layer: tokens.first_uses(experts) for tokens in phase_tokens([trace]).layers}
    return list(static_rows(trace.header, list(layer_matrices(trace)), first_uses))


def covered(hot: list[int], steps: list[list[int]]) -> float:
    """The mean share of a step's experts that are hot."""
    return fmean(len(set(step) & set(hot)) / len(set(step)) for step in steps)


@settings(deadline=None)
@given(st.lists(TOKEN, min_size=2, max_size=9))
def test_the_hottest_of_all_steps_and_of_the_first_half_cover_what_a_plain_loop_counts(tokens: list[Token]) -> None:
    found, half = static(tokens_of(tokens)), len(tokens) // 2
    counts = [Counter(flat(part)) for part in (tokens, tokens[:half])]
    for counter, category, steps in zip(counts, ("run", "first half"), (tokens, tokens[half:]), strict=True):
        for size in (2, 4):
            if size <= len(counter) or category == "run":
                hot = [expert for expert, _ in counter.most_common()][:size]
                expected = covered(hot, steps) if size <= len(counter) else 1.0
                assert at(found, category, size) == pytest.approx(expected)


def test_a_step_of_several_tokens_counts_its_distinct_experts() -> None:
    rows = [Row(0, 0, sequence=0), Row(0, 0, sequence=1), Row(0, 1, sequence=2), Row(1, 0), Row(1, 2, sequence=1)]
    found = static(rows, experts=4)
    assert at(found, "first half", 1) == 1 / 2
    assert at(found, "run", 1) == fmean([1 / 2, 1 / 2])
    assert at(found, "run", 2) == fmean([1, 1 / 2])


def test_each_domain_is_halved_by_itself() -> None:
    found = static(tokens_of([[0], [1]], [[0], [2], [3]]), experts=4)
    assert at(found, "first half", 1) == 0
    assert at(static(tokens_of([[0], [0]], [[0], [0], [3]]), experts=4), "first half", 1) == fmean([1, 1, 0])


def test_a_single_step_predicts_nothing() -> None:
    assert static(tokens_of([[0, 1]])) == []


def test_as_many_experts_are_predicted_as_a_token_uses_and_doubled() -> None:
    assert predicted_sizes(128, 6) == [6, 12, 24, 48, 96]
    assert predicted_sizes(8, 8) == []
    assert predicted_sizes(1, 1) == []


@settings(deadline=None)
@given(
    st.lists(st.lists(TOKEN, max_size=4), min_size=1, max_size=3),
    st.lists(st.lists(TOKEN, max_size=4), min_size=1, max_size=3),
)
def test_every_token_is_predicted_from_the_prompt_of_its_own_sequence(
    prompts: list[list[Token]], answers: list[list[Token]]
) -> None:
    phases = []
    for sequences, first in ((prompts, 0), (answers, 10)):
        rows = [
            Row(first + position, expert, slot, sequence=sequence, position=first + position)
            for sequence, tokens in enumerate(sequences)
            for position, token in enumerate(tokens)
            for slot, expert in enumerate(token)
        ]
        phases.append(rows)
    if all(phases):
        found = list(prompt_rows(*(phase_tokens([trace_of(rows, num_experts=6)]) for rows in phases)))
        pairs = [(prompt, token) for prompt, tokens in zip(prompts, answers, strict=False) for token in tokens if prompt]
        assert bool(found) == bool(pairs)
        for size in (2, 4) if pairs else ():
            shares = [
                len({expert for expert, _ in Counter(flat(prompt)).most_common(size)} & set(token)) / 2
                for prompt, token in pairs
            ]
            assert at(found, "prompt", size) == pytest.approx(fmean(shares))
            assert at(found, "prompt", size, layer="") == pytest.approx(fmean(shares))


def test_sequences_of_other_domains_and_layers_without_a_prompt_predict_nothing() -> None:
    prompt, answer = (trace_of([Row(0, 1, domain=domain)]) for domain in ("a", "b"))
    assert list(prompt_rows(phase_tokens([prompt]), phase_tokens([answer]))) == []
    other = trace_of([Row(0, 1, layer="2")], layers=("2",))
    assert list(prompt_rows(phase_tokens([trace_of([Row(0, 1)])]), phase_tokens([other]))) == []
