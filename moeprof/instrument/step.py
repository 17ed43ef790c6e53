"""The tokens of one forward pass; passed down to the MoE layers, so that decisions can be forced and recorded."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Step:
    """The T = B x L tokens of one forward pass, in the order of its rows."""

    real_T: Tensor | None
    """Which rows are tokens and not padding, on the model's device; None if all are."""
    num_real: int | None = None
    """The number of rows that are tokens, if the host knows it."""
    phase: str = ""
    index: int = 0
    """Forward passes of the phase before this one."""
    domain: str = ""
    sequence_T: Int32s | None = None
    position_T: Int32s | None = None
    token_T: Int32s | None = None

    @property
    def num_tokens(self) -> int:
        """The number of rows that are not padding."""
        assert self.token_T is not None
        if self.real_T is None:
            return len(self.token_T)
        return int(self.real_T.sum()) if self.num_real is None else self.num_real


def make_step(
    phase: str,
    index: int,
    domain: str,
    tokens_BL: npt.NDArray[np.int64],
    real_BL: npt.NDArray[np.bool_],
    sequence_B: npt.NDArray[np.int64],
    first_position: int,
    device: str,
) -> Step:
    """The step of a padded batch whose columns are consecutive positions."""
    batch_size, length = tokens_BL.shape
    positions_L = np.arange(first_position, first_position + length, dtype=np.int32)
    return Step(
        real_T=None if real_BL.all() else torch.from_numpy(real_BL.reshape(-1).copy()).to(device),
        num_real=int(real_BL.sum()),
        phase=phase,
        index=index,
        domain=domain,
        sequence_T=np.repeat(sequence_B.astype(np.int32), length),
        position_T=np.tile(positions_L, batch_size),
        token_T=tokens_BL.reshape(-1).astype(np.int32),
    )
