"""Python runs this at its start: breaks one rank in one region of a layer, the third time it comes there.

BREAK=<how>:<region>:<rank>, how one of raise, kill, hang, stop; where it happened is told in the file BREAK_TOLD.
"""

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

TIMES = 3


def break_rank(how: str, where: str) -> None:
    """Puts a trap in the place of the regions of MoE layers."""
    from moeprof.moe import exchange, experts, layer

    usual, visits = layer.region, []

    def region(name: str, of: str = "") -> AbstractContextManager[None]:
        if name == where:
            visits.append(name)
        if len(visits) == TIMES:
            Path(os.environ["BREAK_TOLD"]).write_text(str(time.time()))
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hang":
                time.sleep(1000)
            if how == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                return usual(name, of)
            raise ValueError("broken on purpose")
        return usual(name, of)

    layer.region = exchange.region = experts.region = region


if "RANK" in os.environ and os.environ.get("BREAK"):
    kind, place, rank = os.environ["BREAK"].split(":")
    if os.environ["RANK"] == rank:
        break_rank(kind, place)
