"""Timed rounds as rows of the raw table `rounds`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeprof.workloads.episodes import Episode, num_tokens


def round_rows(
    pass_name: str, phase: str, episode: Episode, samples: Mapping[str, Sequence[int]], point: str = ""
) -> Iterator[dict[str, Any]]:
    """The rounds of every variant (by label) on one episode, as this rank timed them, nanoseconds."""
    about = {"pass": pass_name, "phase": phase, "point": point, "domain": episode.domain}
    size = {"steps": len(episode.steps), "tokens": num_tokens(episode)}
    for label, times_ns in samples.items():
        for index, time_ns in enumerate(times_ns):
            yield {**about, **size, "variant": label, "round": index, "time_ns": time_ns}
