"""One file per balancer, which says which device holds which experts of a layer; `registry` knows them by name."""
