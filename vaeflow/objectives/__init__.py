"""Training objectives (OBJECTIVES: the losses of models with latent variables, as parts of them; ADVERSARIAL: those of a critic and a
generator) and schedules of coefficients (SCHEDULES).

bounds.py, regularisers.py, relaxations.py and score_function.py have the formulas as functions of log-weights and draws; turns.py says
whose turn a training step is.
"""

from __future__ import annotations

from collections.abc import Callable

from vaeflow.build import maker, part_kind
from vaeflow.objectives import adversarial, adversarial_features, discrete, elbos, multi_sample, penalties, schedules
from vaeflow.objectives.adversarial import Adversarial, Critic
from vaeflow.objectives.bounds import elbo, iwae, renyi
from vaeflow.objectives.objective import FOR_DISCRETE, Draws, Objective
from vaeflow.objectives.regularisers import capacity, critic_loss, decomposition, fooling_loss, free_bits, mmd
from vaeflow.objectives.relaxations import binary_concrete, gumbel_softmax, straight_through
from vaeflow.objectives.schedules import Schedule, scheduled
from vaeflow.objectives.score_function import baseline_loss, leave_one_out, reinforce, silent, sleep_q, vimco, wake_p, wake_q
from vaeflow.objectives.turns import steps_of, turn_of

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "elbo": elbos.elbo,
    "free_bits": elbos.free_bits,
    "capacity": elbos.capacity,
    "elbo_path": multi_sample.elbo_path,
    "iwae": multi_sample.iwae,
    "iwae_one": multi_sample.iwae_one,
    "iwae_path": multi_sample.iwae_path,
    "dreg": multi_sample.dreg,
    "renyi": multi_sample.renyi,
    "tc": penalties.total_correlation,
    "mmd": penalties.mmd,
    "adversarial": penalties.adversarial,
    "reinforce": discrete.reinforce,
    "leave_one_out": discrete.leave_one_out,
    "vimco": discrete.vimco,
    "wake_sleep": discrete.wake_sleep,
    "gumbel_softmax": discrete.gumbel_softmax,
    "straight_through": discrete.straight_through,
}
ADVERSARIAL: dict[str, Callable[..., Adversarial]] = {
    "minimax": adversarial.minimax,
    "non_saturating": adversarial.non_saturating,
    "lsgan": adversarial.lsgan,
    "hinge": adversarial.hinge,
    "wgan": adversarial.wgan,
    "wgan_gp": adversarial.wgan_gp,
    "rwgan": adversarial.rwgan,
    "fisher": adversarial.fisher,
    "mcgan": adversarial_features.mcgan,
    "gmmn": adversarial_features.gmmn,
    "mmd": adversarial_features.mmd,
    "cramer": adversarial_features.cramer,
    "ebgan": adversarial_features.ebgan,
    "began": adversarial_features.began,
    "magan": adversarial_features.magan,
}
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": schedules.constant,
    "linear": schedules.linear,
    "cyclical": schedules.cyclical,
    "geometric": schedules.geometric,
    "root": schedules.root,
    "doubling": schedules.doubling,
    "root_decay": schedules.root_decay,
}


def kinds_for(discrete: bool) -> list[str]:
    """The objectives for discrete latents, or those for reparameterised ones."""
    return sorted(kind for kind, entry in OBJECTIVES.items() if getattr(maker(entry), FOR_DISCRETE, False) == discrete)


part_kind(Objective, "objective", OBJECTIVES)
part_kind(Schedule, "schedule", SCHEDULES)
part_kind(Adversarial, "adversarial objective", ADVERSARIAL)

__all__ = [
    "ADVERSARIAL",
    "OBJECTIVES",
    "SCHEDULES",
    "Adversarial",
    "Critic",
    "Draws",
    "Objective",
    "Schedule",
    "baseline_loss",
    "binary_concrete",
    "capacity",
    "critic_loss",
    "decomposition",
    "elbo",
    "fooling_loss",
    "free_bits",
    "gumbel_softmax",
    "iwae",
    "kinds_for",
    "leave_one_out",
    "mmd",
    "reinforce",
    "renyi",
    "scheduled",
    "silent",
    "sleep_q",
    "steps_of",
    "straight_through",
    "turn_of",
    "vimco",
    "wake_p",
    "wake_q",
]
