"""What decides a run: recipes, variants, and what follows from their shapes alone."""
