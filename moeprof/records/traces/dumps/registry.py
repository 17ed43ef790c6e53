"""The trace formats of other tools that are dumps or counts; those asked first come last."""

from moeprof.records.traces.dumps.count_csv import COUNT_CSV
from moeprof.records.traces.dumps.eplb_stats import EPLB_STATS
from moeprof.records.traces.dumps.imatrix import IMATRIX
from moeprof.records.traces.dumps.load_json import LOAD_JSON
from moeprof.records.traces.dumps.matrices import EPLB, KTRANSFORMERS, SGLANG_LOCATION
from moeprof.records.traces.dumps.sglang import SGLANG

DUMPS = (KTRANSFORMERS, EPLB, SGLANG_LOCATION, COUNT_CSV, LOAD_JSON, EPLB_STATS, IMATRIX, SGLANG)
