"""Recorded events: routing, expert loads, collectives; their files, and those of other engines."""
