"""The formats of this package; a new one is one file and one line here."""

from moeprof.records.traces.logs.cache_lab import CACHE_LAB
from moeprof.records.traces.logs.sglang_api import SGLANG_API
from moeprof.records.traces.logs.vllm import VLLM
from moeprof.records.traces.logs.vllm_log import VLLM_LOG

LOGS = (
    SGLANG_API,
    VLLM,
    VLLM_LOG,
    CACHE_LAB,
)
