"""A run as one JSON document: its record, and every row of its metrics."""

import json
from collections.abc import Sequence
from typing import Any

from moeprof.records.run.run import Run


def render_all(runs: Sequence[Run]) -> str:
    """Pretty-printed JSON, with keys in the order of the files; several runs are a list."""
    documents = [document(run) for run in runs]
    return json.dumps(documents[0] if len(documents) == 1 else documents, indent=1) + "\n"


def document(run: Run) -> dict[str, Any]:
    """The document: `path`, `run` as in `run.json`, and `metrics` without empty keys."""
    rows = run.metrics.to_dict(orient="records")
    metrics = [{str(key): value for key, value in row.items() if value != ""} for row in rows]
    return {"path": str(run.path), "run": run.record.model_dump(mode="json", by_alias=True), "metrics": metrics}
