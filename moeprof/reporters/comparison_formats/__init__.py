"""Comparisons in formats for people and CI systems: `render(comparison) -> str`, one file per format."""
