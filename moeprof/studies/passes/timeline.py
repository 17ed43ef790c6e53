"""The pass `timeline`, only with `--timeline`: a few steps of one batch under torch.profiler, for `timeline` and `view`."""

from collections.abc import Sequence
from dataclasses import replace

from moeprof.instrument.timeline import record_timeline
from moeprof.studies.session import Session
from moeprof.workloads.episodes import DecodeEpisode, Episode

STEPS = 4
"""Forward passes of a decoded round; more make a trace that nobody scrolls through."""


def trace_timeline(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes one trace per contender into the run's `timeline/`."""
    session.progress.stage(f"{phase}: timeline", len(session.contenders))
    folder = session.writer.path / "timeline"
    episode = beginning(episodes[0])
    for variant, model in session.contenders.items():
        record_timeline(episode.ready(model), folder, f"{phase}-{variant.label}", session.recipe.measure.device)
        session.progress.advance()


def beginning(episode: Episode) -> Episode:
    """The first steps of an episode that decodes, the whole of any other."""
    if isinstance(episode, DecodeEpisode):
        return replace(episode, tokens_NB=episode.tokens_NB[:STEPS], steps=episode.steps[:STEPS])
    return episode
