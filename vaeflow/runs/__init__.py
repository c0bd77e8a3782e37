"""A run's directory: what is written, how it is verified, how it is read."""
