"""Hits and misses of expert caches, and what they cost in time and save in memory."""
