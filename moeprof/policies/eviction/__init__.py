"""Eviction policies: what one is (`eviction`), and the table of all of them (`registry`)."""
