"""Which experts leave a full cache: eviction policies and the state machine that they decide for; numpy only, deterministic."""
