"""The numbers of one run by their address, and how they are written in a cell."""

from collections.abc import Callable
from dataclasses import dataclass

from moeprof.records.run.run import Run
from moeprof.records.units import format_count, format_duration, format_significant

MISSING = "-"
ADDRESS = ("metric", "phase", "domain", "variant", "layer", "region", "category")


@dataclass(frozen=True)
class Numbers:
    """The rows of `metrics.csv` that are about the whole run, or about one rank: no point."""

    values: dict[tuple[str, ...], float]

    @classmethod
    def of(cls, run: Run, rank: str = "") -> "Numbers":
        """Read once; without a rank those over all of them."""
        table = run.metrics
        whole = table[(table["point"] == "") & (table["rank"] == rank)]
        keys = zip(*(whole[column] for column in ADDRESS), strict=True)
        return cls(dict(zip(keys, whole["value"], strict=True)))

    def get(
        self,
        metric: str,
        phase: str = "",
        domain: str = "",
        variant: str = "static",
        layer: str = "",
        region: str = "",
        category: str = "",
    ) -> float | None:
        """The number, or None where the run has none."""
        return self.values.get((metric, phase, domain, variant, layer, region, category))

    def domains(self, phase: str) -> list[str]:
        """Named domains of a phase, in order."""
        return self.distinct("domain", phase)

    def layers(self, phase: str) -> list[str]:
        """Layers of a phase, in order."""
        return self.distinct("layer", phase, "active_experts")

    def distinct(self, column: str, phase: str, metric: str = "") -> list[str]:
        """What stands in a column of a phase's rows (those of one metric), in order, empty left out."""
        index = ADDRESS.index(column)
        found = (key[index] for key in self.values if key[1] == phase and metric in ("", key[0]))
        return [name for name in dict.fromkeys(found) if name]

    def recorded(self, phase: str) -> bool:
        """Whether the run has any number of this phase."""
        return any(key[1] == phase for key in self.values)

    def whole(self, phase: str) -> str:
        """The domain under which a phase's whole is timed: a single domain is the whole."""
        domains = self.domains(phase)
        return domains[0] if len(domains) == 1 else ""

    def scopes(self, phase: str) -> list[str]:
        """What a table has rows for: all domains together, then each where there are several; the only one by its name."""
        domains = self.domains(phase)
        return ["", *domains] if len(domains) != 1 else domains


Write = Callable[[float], str]


def cell(value: float | None, write: Write = format_significant) -> str:
    """The number as `write` shows it, or a dash."""
    return MISSING if value is None else write(value)


def percent(fraction: float) -> str:
    """`12.3%`; a share that is not nothing never looks like nothing, nor one below everything like everything."""
    text = f"{fraction:.1%}"
    if text == "0.0%" and fraction > 0:
        text = "<0.1%"
    if text == "100.0%" and fraction < 1:
        text = ">99.9%"
    return text


def times(ratio: float) -> str:
    """`12.8x`."""
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def rate(tokens_per_s: float) -> str:
    """Tokens per second, in words a table has room for."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.3g}"


duration: Write = format_duration
count: Write = format_count
