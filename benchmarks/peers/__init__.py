"""Other flow libraries, each in its own environment and process: agreement of densities, times of sampling; see README.md."""
