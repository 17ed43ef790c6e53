"""What a replay or characterization records of its trace."""

from moeprof.records.run.replay import TraceRequest, TraceSource

SOURCE = {"name": "a", "path": "a.json", "workload": "lm", "num_experts": 4, "top_k": 1, "layers": ["0"], "decisions": {}}


def test_a_trace_says_what_its_steps_have() -> None:
    known = TraceSource.model_validate(SOURCE | {"top_k": 2})
    assert (known.counted, known.choices_of_a_token) == (("token", "tokens"), ", top-2")
    unknown = TraceSource.model_validate(SOURCE | {"top_k_known": False})
    assert (unknown.counted, unknown.choices_of_a_token) == (("choice", "choices"), "; the experts of a token are not known")


def test_an_earlier_run_that_states_it_beside_the_trace_is_read() -> None:
    earlier = {"trace": SOURCE, "variant": "counts", "counts_only": True, "top_k_known": False}
    found = TraceRequest.model_validate(earlier)
    assert not found.trace.top_k_known
    assert TraceRequest.model_validate(found.model_dump()) == found
