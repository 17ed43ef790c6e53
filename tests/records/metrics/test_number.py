"""Numbers of metrics.csv keep their rows through arithmetic."""

import json

from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.metrics.number import Formula, RecordedNumber, as_json, origin_of
from moeprof.records.metrics.row import row_key

STEP, TOKENS = row_key("step_latency", phase="decode"), row_key("step_tokens", phase="decode")


def evaluated(source: object, values: dict[str, float]) -> float:
    """The value of a source in JSON, by Python's own evaluation of an expression."""

    def written(part: object) -> str:
        match part:
            case [sign, left, right]:
                return f"({written(left)} {sign} {written(right)})"
            case {"metric": metric}:
                return repr(values[metric])
            case _:
                return repr(part)

    return eval(written(source))


def test_a_quotient_names_both_rows():
    rate = RecordedNumber(8.0, TOKENS) / RecordedNumber(0.5, STEP)
    assert rate == 16.0
    assert rate.origin == Formula("/", TOKENS, STEP)


def test_a_constant_is_its_own_source():
    assert origin_of(3) == 3.0
    assert (1 - RecordedNumber(0.25, STEP)).origin == Formula("-", 1.0, STEP)


def test_a_source_in_json_names_the_cells_that_are_not_empty():
    assert json.loads(json.dumps(as_json((RecordedNumber(2.0, STEP) * 3).origin))) == [
        "*",
        {"phase": "decode", "metric": "step_latency"},
        3.0,
    ]


def test_a_number_is_written_and_compared_like_any_float():
    number = RecordedNumber(0.1234, STEP)
    assert (f"{number:.1%}", json.dumps(number), max(number, 0.1), number == 0.1234) == ("12.3%", "0.1234", number, True)


@given(a=st.floats(0.1, 1e6), b=st.floats(0.1, 1e6), c=st.floats(0.1, 1e6))
def test_the_source_of_any_expression_evaluates_to_its_value(a: float, b: float, c: float):
    step, tokens = RecordedNumber(a, STEP), RecordedNumber(b, TOKENS)
    for result in (
        (step + tokens) / c,
        -step * c - tokens,
        c - step / tokens,
        sum([step, tokens]),
        c / step,
        c + step,
        c * tokens,
    ):
        assert evaluated(as_json(result.origin), {"step_latency": a, "step_tokens": b}) == float(result)
