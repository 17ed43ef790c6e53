"""Steps of another size: the tokens of a trace in order, so many to a step, as a server of larger batches runs them.

Shape suffixes: R rows of all ranks, T tokens in order of domain and time, D domains.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from moeprof.analysis.routing.load_matrix import Counts, rank_of_rows
from moeprof.records.traces.routing_trace import RoutingTrace, joined


def together(traces: Sequence[RoutingTrace]) -> RoutingTrace:
    """One trace of all ranks of a phase, with the layers of any of them."""
    layers = list(dict.fromkeys(layer for trace in traces for layer in trace.header.layers))
    return joined(traces[0].header.model_copy(update={"layers": layers}), [trace.table for trace in traces])


def in_steps_of(traces: Sequence[RoutingTrace], tokens: int) -> list[RoutingTrace]:
    """The traces of one phase, one per rank, with `tokens` consecutive tokens of a domain in every step.

    The tokens of a recorded step are in the order of rank, sequence and position. The last tokens of a domain that do not fill a step are
    left out. Five tokens of one domain in steps of two: steps 0, 0, 1, 1, and the fifth is left out.
    """
    whole = together(traces)
    token_R, domain_T = tokens_in_order(whole, rank_of_rows(traces))
    counts_D = np.bincount(domain_T)
    number_T = np.arange(len(domain_T)) - (np.cumsum(counts_D) - counts_D)[domain_T]
    steps_D = counts_D // tokens
    step_T = np.where(
        number_T < (steps_D * tokens)[domain_T], number_T // tokens + (np.cumsum(steps_D) - steps_D)[domain_T], -1
    )
    ends = np.cumsum([len(trace) for trace in traces])[:-1]
    return [with_steps(trace, step_R) for trace, step_R in zip(traces, np.split(step_T[token_R], ends), strict=True)]


def tokens_in_order(trace: RoutingTrace, rank_R: Counts) -> tuple[Counts, Counts]:
    """The number of every row's token, (R,), and the domain of every token, (T,)."""
    domain_R = trace.codes("domain")[0]
    keys = [domain_R, trace.column("step"), rank_R, trace.column("sequence"), trace.column("position")]
    order = np.lexsort(keys[::-1])
    new_R = np.ones(len(order), bool)
    new_R[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    token_R = np.empty(len(order), np.int64)
    token_R[order] = np.cumsum(new_R) - 1
    return token_R, domain_R[order][new_R].astype(np.int64)


def with_steps(trace: RoutingTrace, step_R: Counts) -> RoutingTrace:
    """The trace with these steps; rows with a negative one are left out."""
    at = trace.table.schema.get_field_index("step")
    table = trace.table.set_column(at, trace.table.schema.field(at), pa.array(step_R.astype(np.int32)))
    return RoutingTrace(trace.header, table.filter(pa.array(step_R >= 0)))
