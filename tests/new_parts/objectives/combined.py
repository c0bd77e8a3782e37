"""Combination of the ELBO and the IWAE bound of the same k draws (CIWAE; Rainforth et al. 2018, arXiv 1802.04537):

    loss = -(s L_1 + (1 - s) L_k),    L_1 = mean_i log w_i,    L_k = log mean_i w_i

L_1 <= L_k in expectation, so the value is a lower bound of log p(x) for every share s in [0, 1].
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp

from vaeflow.build import TRACED, Fraction
from vaeflow.objectives.bounds import elbo, iwae
from vaeflow.objectives.multi_sample import Several
from vaeflow.objectives.objective import Objective
from vaeflow.objectives.schedules import Schedule, scheduled


def combined(*, k: Several = 5, share: Annotated[Schedule | Fraction, TRACED] = 0.5) -> Objective:
    """-(s mean_i log w_i + (1 - s) log mean_i w_i).

    Args:
        k: draws per example.
        share: s, the share of the ELBO, as a number or a schedule.
    """
    weight = scheduled(share)

    def loss(own, key, draws, step):
        del own, key
        s, log_x, rate = weight.at(step), draws.log_x(draws.z), draws.log_q - draws.log_z(draws.z)
        total = -jnp.mean(s * elbo(log_x - rate) + (1 - s) * iwae(log_x - rate))
        return total, {"loss": total, "recon": -jnp.mean(log_x), "kl": jnp.mean(rate), "share": s}

    def bound(log_w):
        last = weight.at(1 << 30)
        return last * elbo(log_w) + (1 - last) * iwae(log_w)

    return Objective(loss, k, bound=bound, kind="combined")
