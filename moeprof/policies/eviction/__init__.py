"""One file per eviction policy; `registry` knows them by name."""
