"""Optimizations by name; one file each turns a Variant into the next, and no file of this room needs torch."""
