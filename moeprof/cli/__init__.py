"""One file per command: parse, call a study, print what a reporter returned."""
