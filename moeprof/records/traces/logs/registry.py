"""The formats of this package; a new one is one file and one line here."""

from moeprof.records.traces.logs.cache_lab import CACHE_LAB
from moeprof.records.traces.logs.router_data import ROUTER_DATA
from moeprof.records.traces.logs.score_lists import SCORE_LISTS
from moeprof.records.traces.logs.selections import SELECTIONS
from moeprof.records.traces.logs.sglang_api import SGLANG_API
from moeprof.records.traces.logs.vllm import VLLM
from moeprof.records.traces.logs.vllm_log import VLLM_LOG

LOGS = (
    SGLANG_API,
    VLLM,
    VLLM_LOG,
    CACHE_LAB,
    SELECTIONS,
    ROUTER_DATA,
    SCORE_LISTS,
)
