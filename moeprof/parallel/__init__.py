"""Launching and joining ranks, and what they say to each other."""
