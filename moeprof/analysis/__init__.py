"""What records say: sparsity, balance, locality, correlation and drift as pure functions; numpy and scipy, never torch."""
