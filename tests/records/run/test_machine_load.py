"""Of several runs the load of the busiest one is kept."""

from moeprof.records.run.machine_load import MachineLoad, busiest


def test_the_busiest_load_is_that_with_the_largest_share_for_others() -> None:
    quiet, busy = MachineLoad(before=3, others=0.02, stolen=0.01), MachineLoad(before=0, others=0.2, stolen=0)
    assert busiest([quiet, None, busy]) == busy
    assert busiest([None, quiet]) == quiet
    assert busiest([None]) is None


def test_a_load_without_shares_is_the_busiest_if_only_it_is_busy() -> None:
    queued = MachineLoad(before=2)
    assert busiest([MachineLoad(before=0, others=0.09, stolen=0), queued]) == queued
