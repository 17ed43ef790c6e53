"""The transformer backbones, their weights, and the twin without experts."""
