"""Where expert weights are kept, and how kernels get them."""
