"""One file per command: parse, call a study, print what a reporter returned."""

from moeprof.cli.group import main

__all__ = ["main"]
