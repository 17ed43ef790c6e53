"""The two sides of a comparison, made of a few numbers."""

from typing import Any

from moeprof.analysis.comparison.measurement import Measurement, Number
from moeprof.records.metrics.registry import KEYS, METRICS

TEXTS = {"prose": "a" * 64, "code": "b" * 64}
WEIGHTS = "c" * 64
ROUTING = {"score/static": "d" * 64, "decode/static": "e" * 64, "score/dynamic": "d" * 64}
MACHINE = {"cpu": "Example 9000", "cores": "2", "threads": "2", "gpu": "", "driver": ""}
SETTINGS = {"name": "lm-tiny", "model": {"dim": 64, "experts": 16}, "load": {"batch_size": 8}}

STEADY = [0.985, 0.990, 0.993, 0.996, 0.999, 1.001, 1.004, 1.007, 1.010, 1.015]
"""Ten rounds around 1, no two alike."""


def number(metric: str, value: float, *, unit: str = "", kind: str = "", samples: Any = (), **keys: str) -> Number:
    """A number of the workload `lm`; unit and kind are those of the registry unless named."""
    cells = {"workload": "lm", "metric": metric, **keys}
    known = METRICS.get(metric)
    document = {
        "address": [cells.get(key, "") for key in KEYS],
        "unit": unit or (known.unit if known else "things"),
        "kind": kind or (known.kind if known else "exact"),
        "value": value,
        "samples": samples,
    }
    return Number.model_validate(document)


def throughput(*rounds: float, processes: int = 5, **keys: str) -> Number:
    """A throughput with its rounds, dealt to some processes; phase `score` and variant `static` unless named."""
    samples = [list(rounds[start::processes]) for start in range(processes)] if rounds else []
    value = sorted(rounds)[len(rounds) // 2] if rounds else 1000.0
    return number("throughput", value, samples=samples, **{"phase": "score", "variant": "static", **keys})


def side(*numbers: Number, **changes: Any) -> Measurement:
    """A subject on which everything but the named fields is as on every other one."""
    usual: dict[str, Any] = {
        "recipe": "lm-tiny",
        "command": "characterize",
        "settings": SETTINGS,
        "machine": MACHINE,
        "texts": TEXTS,
        "weights": WEIGHTS,
        "routing": ROUTING,
    }
    return Measurement.model_validate(usual | changes | {"numbers": numbers})
