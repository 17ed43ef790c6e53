"""Where expert weights live, and how they are handed to the kernels."""
