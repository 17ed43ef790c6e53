"""The machine under moeprof: files, pipes, locks, memory, cores and signals, and what is reported if it refuses."""
