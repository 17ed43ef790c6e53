"""Ranks: how they are launched and joined, their collectives, and how they fail."""
