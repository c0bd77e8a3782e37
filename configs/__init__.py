"""Experiment configs: plain values only."""
