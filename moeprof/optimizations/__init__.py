"""Optimizations by name: each has one file, which turns one Variant into the next; none of them imports torch."""
