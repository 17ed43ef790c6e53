"""Recorded events: routing, expert loads and collectives, with their files, and the trace formats of other engines."""
