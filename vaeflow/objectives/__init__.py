"""Training objectives as functions of log-weights, draws and steps: bounds.py, regularisers.py, score_function.py, schedules.py."""

from __future__ import annotations

from vaeflow.objectives.bounds import PATH, Bound, bound, elbo, iwae, renyi
from vaeflow.objectives.regularisers import free_bits
from vaeflow.objectives.schedules import BetaSchedule, beta_schedule

__all__ = ["PATH", "BetaSchedule", "Bound", "beta_schedule", "bound", "elbo", "free_bits", "iwae", "renyi"]
