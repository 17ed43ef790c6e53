"""Checks of a file that a command is going to write, before it works for it."""

from pathlib import Path

from moeprof.records.errors import UsageError

WEIGHTS = ".safetensors"
"""What the names of files of weights end with."""


def check_place(out: Path, suffix: str = "") -> None:
    """UsageError if the name does not end as it must, or if its folder does not exist."""
    if suffix and out.suffix != suffix:
        raise UsageError(f"--out {out}: the name does not end with {suffix}", f"Example: --out {out.with_suffix(suffix)}")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist", "Create it, or give another --out.")


def exists_already(path: Path) -> UsageError:
    """The error for a file that only --force replaces."""
    return UsageError(f"--out {path}: the file already exists", "Give another --out, or --force to replace it.")
