"""What else a machine did while a run was measured."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

BUSY = 0.10
"""A larger share of the processor time of all cores, used by others, makes a machine busy."""

FULL = 0.5
"""Without that share: more runnable processes per core in the minute before the run make a machine busy."""


class MachineLoad(BaseModel):
    """Shares are of the processor time of all cores, in the busiest stretch of the passes; None if the system does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: float | None = None
    """Runnable processes per core, mean over the minute before the run (the load average)."""
    others: float | None = None
    """Used by other processes of this machine."""
    stolen: float | None = None
    """Used by other virtual machines on the same hardware."""

    @property
    def busy(self) -> bool:
        """Whether timings are likely to suffer from something that is not part of the run."""
        if self.others is None or self.stolen is None:
            return self.before is not None and self.before > FULL
        return self.others + self.stolen > BUSY


def busiest(loads: Iterable[MachineLoad | None]) -> MachineLoad | None:
    """The load with the largest share for others, one that is busy in any case before one that is not; None if none is known."""
    known = [load for load in loads if load is not None]
    return max(known, key=lambda load: (load.busy, (load.others or 0) + (load.stolen or 0), load.before or 0), default=None)
