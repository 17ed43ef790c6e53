"""The pass `timeline`, only with `--timeline`: a few steps of one batch under torch.profiler, for `timeline` and `view`."""

from collections.abc import Sequence

from moeprof.instrument.timeline import record_timeline
from moeprof.studies.session import Session, beginning
from moeprof.workloads.episodes import Episode


def trace_timeline(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes one trace per contender, and of every rank, into the run's `timeline/`."""
    session.progress.stage(f"{phase}: timeline", len(session.contenders))
    folder = session.writer.path / "timeline"
    episode = beginning(episodes[0])
    whose = "" if session.group.alone else f"-rank{session.group.rank}"
    for variant in session.contenders:
        name = f"{phase}-{variant.label}{whose}"
        record_timeline(episode.ready(session.use(variant)), folder, name, session.recipe.measure.device)
        session.progress.advance()
