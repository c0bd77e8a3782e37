"""Which estimator a discrete-latent VAE is trained by, what it needs, and its surrogate from log-probabilities."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax

from vaeflow import objectives
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.models.parts.vae_loss import check_schedule

Estimator = Literal["reinforce", "reinforce_baseline", "leave_one_out", "vimco", "wake_sleep", "gumbel_softmax", "straight_through"]
RELAXED = ("gumbel_softmax", "straight_through")
# Their bound is that of k draws, and their weights must be those of log p(x): beta is 1.
MULTI_SAMPLE = ("vimco", "wake_sleep")


class Estimation(NamedTuple):
    """discrete.py's arguments of the same names; baseline: whether there is one."""

    estimator: Estimator
    samples: int
    baseline: bool
    wake_q: bool
    sleep_q: bool
    relaxation: float
    relaxation_start: float
    relaxation_steps: int


def surrogate(how: Estimation, log_x: Array, log_p: Array, log_q: Array, beta: Array, baseline: Array | None) -> Array:
    """[B], to be maximised, from log p(x|z), log p(z) and log q(z|x) [k, B] of exact draws: its value is the bound, its derivative the
    estimator, and that of the baseline's own squared error. The sleep phase needs other draws and is discrete.py's."""
    if how.estimator in MULTI_SAMPLE:
        log_w = log_x + log_p - log_q
        if how.estimator == "vimco":
            return objectives.vimco(log_w, log_q)
        bound = objectives.wake_p(log_w, log_q)
        return bound + objectives.wake_q(log_w, log_q) if how.wake_q else bound
    # The score of q inside log w has mean 0 and is left out.
    log_w = log_x + beta * (log_p - jax.lax.stop_gradient(log_q))
    if how.estimator == "leave_one_out":
        return objectives.leave_one_out(log_w, log_q)
    if baseline is None:
        return objectives.reinforce(log_w, log_q)
    return objectives.reinforce(log_w, log_q, baseline) - objectives.silent(objectives.baseline_loss(log_w, baseline))


def check(how: Estimation, beta: float, schedule: str, beta_steps: int) -> None:
    """UserError: values that the estimator does not read, or cannot do without."""
    name, start, steps = how.estimator, how.relaxation_start, how.relaxation_steps
    chosen = f"model.estimator={name!r}"
    if how.baseline != (name == "reinforce_baseline"):
        raise UserError(f"model.baseline and {chosen} do not fit: it is a network's name for 'reinforce_baseline', for all others ''")
    if (how.wake_q or how.sleep_q) != (name == "wake_sleep"):
        phases = f"model.wake_q={how.wake_q}, model.sleep_q={how.sleep_q}"
        raise UserError(f"{phases} and {chosen} do not fit: one or both are on for 'wake_sleep', none for all others")
    if bool(how.relaxation) != (name in RELAXED):
        words = f"model.relaxation={how.relaxation:g} and {chosen} do not fit"
        raise UserError(f"{words}: it is a temperature above 0 for {', '.join(RELAXED)}, 0 for all others")
    if bool(start) != bool(steps) or (start and not how.relaxation):
        words = f"model.relaxation_start={start:g} and model.relaxation_steps={steps}"
        raise UserError(f"{words} go together, with model.relaxation: both above 0 for a falling temperature, both 0 for a constant one")
    if how.samples < 2 and (name in ("leave_one_out", "vimco") or how.wake_q):
        raise UserError(f"model.samples={how.samples} is too few for {chosen}, which compares draws: it must be >= 2")
    if name in MULTI_SAMPLE and (beta != 1 or schedule != "constant"):
        words = f"model.beta={beta:g}, model.beta_schedule={schedule!r}"
        raise UserError(f"{words}: {chosen} needs 1, constant, as its weights are those of log p(x)")
    check_schedule(schedule, beta_steps)
