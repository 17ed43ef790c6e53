"""Balancers, one file each, assign the experts of a layer to devices; `registry` finds them by name."""
