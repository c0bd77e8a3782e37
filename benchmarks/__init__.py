"""Speed, as ratios of things measured side by side; benchmarks/README.md says how to run them."""
