"""Where experts are placed, how evenly that loads the devices, and what the devices send each other."""
