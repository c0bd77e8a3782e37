"""Training objectives as functions of log-weights, draws and steps: bounds.py, regularisers.py, relaxations.py,
score_function.py, schedules.py, turns.py."""

from __future__ import annotations

from vaeflow.objectives.bounds import PATH, Bound, bound, elbo, iwae, renyi
from vaeflow.objectives.regularisers import capacity, critic_loss, decomposition, fooling_loss, free_bits, mmd
from vaeflow.objectives.relaxations import annealing, binary_concrete, gumbel_softmax, straight_through
from vaeflow.objectives.schedules import BetaSchedule, beta_schedule
from vaeflow.objectives.score_function import baseline_loss, leave_one_out, reinforce, silent, sleep_q, vimco, wake_p, wake_q
from vaeflow.objectives.turns import steps_of, turn_of

__all__ = [
    "PATH",
    "BetaSchedule",
    "Bound",
    "annealing",
    "baseline_loss",
    "beta_schedule",
    "binary_concrete",
    "bound",
    "capacity",
    "critic_loss",
    "decomposition",
    "elbo",
    "fooling_loss",
    "free_bits",
    "gumbel_softmax",
    "iwae",
    "leave_one_out",
    "mmd",
    "reinforce",
    "renyi",
    "silent",
    "sleep_q",
    "steps_of",
    "straight_through",
    "turn_of",
    "vimco",
    "wake_p",
    "wake_q",
]
