"""One file for each way in which models call their experts: how to recognise it, and how to read the routing from a call."""
