"""The pass `timeline`, only with `--timeline`: a few steps of one batch under torch.profiler, for `timeline` and `view`."""

from collections.abc import Sequence

from moeprof.instrument.timeline import record_timeline
from moeprof.studies.selection import beginning
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode


def trace_timeline(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Writes one profiler trace per variant and rank into the run's `timeline/`."""
    runner = services.runner
    services.progress.stage(f"{phase}: timeline", len(runner.variants))
    folder = services.writer.path / "timeline"
    episode = beginning(episodes[0])
    suffix = "" if services.group.alone else f"-rank{services.group.rank}"
    for variant in runner.variants:
        play = episode.ready(runner.select(variant))
        record_timeline(play, folder, f"{phase}-{variant.label}{suffix}", services.recipe.measure.device)
        services.progress.advance()
    return Findings()
