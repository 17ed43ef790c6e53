"""The steps of a route log counted over all its chats, each of which begins at position 0.

R rows, B blocks: the rows of a turn, or of one sequence of it.
"""

import numpy as np
import pyarrow as pa

from moeprof.records.arrays import Ints


def numbered(table: pa.Table) -> pa.Table:
    """The table with the number of the chat as `sequence`, `position`, and steps that count over all chats.

    Turns 0, 1, 2 with steps 0 to 5, 6 to 9, 0 to 3  ->  sequences 0, 0, 1 with steps 0 to 5, 6 to 9, 10 to 13

    Sequences whose rows follow each other are chats too; if the rows of several alternate, they ran together.
    """
    logged_R = table["step"].to_numpy().astype(np.int64)
    turn_R, sequence_R = (column_of(table, name) for name in ("turn", "sequence"))
    block_R = blocks_of(turn_R, sequence_R)
    num_blocks = int(block_R.max()) + 1
    first_B, last_B = np.full(num_blocks, np.iinfo(np.int64).max), np.full(num_blocks, -1)
    np.minimum.at(first_B, block_R, logged_R)
    np.maximum.at(last_B, block_R, logged_R)
    restarts_B = np.append(False, first_B[1:] <= last_B[:-1])
    shift_B = np.cumsum(np.where(restarts_B, np.append(0, last_B[:-1]) + 1 - first_B, 0))
    chat_R = np.cumsum(restarts_B)[block_R]
    columns = {"step": logged_R + shift_B[block_R], "sequence": sequences_of(table, chat_R, sequence_R)}
    if "position" not in table.column_names:
        columns["position"] = logged_R
    others = {name: table[name] for name in table.column_names if name not in columns}
    return pa.table(others | {name: pa.array(values) for name, values in columns.items()})


def column_of(table: pa.Table, name: str) -> Ints:
    """A column of numbers, or zeros if it is absent."""
    return table[name].to_numpy().astype(np.int64) if name in table.column_names else np.zeros(table.num_rows, np.int64)


def blocks_of(turn_R: Ints, sequence_R: Ints) -> Ints:
    """The number of each row's block: its turn, and its sequence if none has rows between those of another in that turn."""
    changes = np.append(True, (np.diff(turn_R) != 0) | (np.diff(sequence_R) != 0))
    runs = np.flatnonzero(changes)
    pairs = np.unique(np.stack([turn_R[runs], sequence_R[runs]]), axis=1).shape[1]
    if pairs < len(runs) or pairs == len(np.unique(turn_R)):
        return np.unique(turn_R, return_inverse=True)[1]
    turns = turn_R[runs]
    place = np.empty(len(runs), np.int64)
    place[np.argsort(turns, kind="stable")] = np.arange(len(runs))
    return np.asarray(place[np.cumsum(changes) - 1])


def sequences_of(table: pa.Table, chat_R: Ints, sequence_R: Ints) -> Ints:
    """The sequence of each row: as stated, or the chat; numbered anew if a stated one is in several chats."""
    if "sequence" not in table.column_names:
        return chat_R
    known, number_R = np.unique(np.stack([chat_R, sequence_R]), axis=1, return_inverse=True)
    alike = known.shape[1] == len(np.unique(sequence_R))
    return sequence_R if alike else number_R.reshape(-1)
