"""Whether two measurements differ, and whether two variants compute the same."""
