"""How tokens use experts: load matrices and what follows from them."""
