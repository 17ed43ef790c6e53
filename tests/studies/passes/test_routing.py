"""The pass that records routing is short, because it derives nothing."""

import inspect

from moeprof.studies.passes.routing import record_routing


def test_the_function_that_records_routing_has_at_most_25_lines() -> None:
    assert len(inspect.getsource(record_routing).splitlines()) <= 25
