"""What is kept and named: recipes, variants, placements, traces, runs, metrics, regions. Never imports torch."""
