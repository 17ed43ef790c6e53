"""The answers of runs: one file per kind of run."""
