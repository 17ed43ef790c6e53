"""Text to fit on and text to judge by, divided by document, as the passes over it that a model makes."""
