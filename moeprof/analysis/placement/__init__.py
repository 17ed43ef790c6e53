"""Placements of experts: how evenly they load the devices, and what the devices send each other."""
