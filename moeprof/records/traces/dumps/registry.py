"""The trace formats of other tools that are dumps or counts; those asked first come last."""

from moeprof.records.traces.dumps.sglang import SGLANG

DUMPS = (SGLANG,)
