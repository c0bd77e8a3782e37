"""Training objectives as functions of log-weights, draws and steps: bounds.py, regularisers.py, score_function.py, schedules.py."""

from __future__ import annotations

from vaeflow.objectives.bounds import PATH, Bound, bound, elbo, iwae, renyi
from vaeflow.objectives.regularisers import capacity, critic_loss, decomposition, fooling_loss, free_bits, mmd
from vaeflow.objectives.schedules import BetaSchedule, beta_schedule

__all__ = [
    "PATH",
    "BetaSchedule",
    "Bound",
    "beta_schedule",
    "bound",
    "capacity",
    "critic_loss",
    "decomposition",
    "elbo",
    "fooling_loss",
    "free_bits",
    "iwae",
    "mmd",
    "renyi",
]
