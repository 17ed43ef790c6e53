"""How a run is observed: the clock, the steps, what the router decided, the machine."""
