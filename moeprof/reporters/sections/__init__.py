"""The sections of a report, one file per question; each turns a run's numbers into blocks."""
