"""Families of models: the architecture and the kind of router behind a name, apart from the workload that is run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """An architecture; its module is found under the same name in `models.build`, its router in `moe.router`."""

    workload: str
    """The workload that its models can run."""
    encoder: bool
    """Whether its models have an encoder beside the decoder."""
    router: str = "softmax"


FAMILIES: dict[str, Family] = {
    "decoder-only": Family("lm", encoder=False),
    "encoder-decoder": Family("mt", encoder=True),
}


def known_family(name: str) -> str:
    """The name itself; ValueError if no family has it."""
    if name not in FAMILIES:
        raise ValueError(f"unknown family {name!r}, known are {', '.join(FAMILIES)}")
    return name


def default_family(workload: str) -> str:
    """The first family that runs a workload."""
    return next(name for name, family in FAMILIES.items() if family.workload == workload)
