"""The commands: one file for each of experiments/, which parses the flags."""
