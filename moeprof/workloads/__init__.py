"""From recipe and text to batches and phases."""
