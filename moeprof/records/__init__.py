"""What is kept and named: recipes, variants, placements, routing traces, runs, metrics, regions. Never imports torch."""
