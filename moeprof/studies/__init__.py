"""One file per study: it does a command's work and leaves a run directory behind."""
