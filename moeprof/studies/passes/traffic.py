"""The pass `traffic`: the batches of the pass `time` again, every collective observed on every rank."""

from collections.abc import Sequence

from moeprof.instrument.timing import interleaved
from moeprof.instrument.traffic import Collective, TrafficRecorder, traffic_table
from moeprof.parallel.collectives import gathered
from moeprof.parallel.link import measured_links
from moeprof.records.run.raw_tables import ROUNDS, TRAFFIC
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.traffic import joined
from moeprof.studies.passes.breakdown import WARMUP
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode


def measure_traffic(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records every collective of some rounds, and the links between the ranks; nothing if there is one rank only."""
    if services.group.alone:
        return Findings()
    chosen = first_of_each_domain(episodes)
    services.progress.stage(f"{phase}: traffic", len(chosen) * (WARMUP + services.half_the_rounds))
    observed = [observe(services, phase, episode) for episode in chosen]
    measure_links(services)
    for label in observed[0]:
        own = traffic_table(services.group.rank, phase, label, [by_label[label] for by_label in observed])
        tables = [unpacked(payload) for payload in gathered(services.group, packed(own))]
        if services.group.first:
            services.writer.add_traffic(joined(tables))
    return Findings()


def observe(services: Services, phase: str, episode: Episode) -> dict[str, list[list[Collective]]]:
    """The collectives of every round on one batch, by label of the variants that have experts."""
    routed = services.runner.routed
    recorders = {variant.label: TrafficRecorder() for variant in routed}
    samples = interleaved(
        {one.label: services.runner.prepare(one, episode).under(recorders[one.label].observing) for one in routed},
        rounds=services.half_the_rounds,
        warmup=WARMUP,
        clock=services.clock,
        between=services.progress.advance,
    )
    services.record(ROUNDS, round_rows(TRAFFIC, phase, episode, samples))
    return {label: recorder.rounds[WARMUP:] for label, recorder in recorders.items()}


def measure_links(services: Services) -> None:
    """Measures the links between the ranks, or takes what was kept of an earlier run, and records them."""
    machine, device = services.writer.record.environment, services.recipe.measure.device
    about = {"cpu": machine.cpu, "cores": str(machine.cores), "gpu": machine.gpu, "torch": machine.packages.get("torch", "")}
    links = measured_links(services.group, about | {"device": device}, device, services.clock)
    if services.group.first:
        links.write(services.writer.path / "links.json")
