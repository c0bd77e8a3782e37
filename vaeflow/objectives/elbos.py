"""The negative ELBO, its KL term weighted, with free bits or held at a capacity.

    elbo        E_q[-log p(x|z)] + beta(step) KL(q(z|x) || p(z))                (Kingma & Welling 2014; beta: Higgins et al. 2017)
    free_bits   ... + beta(step) sum_j max(floor, KL_j)                          (Kingma et al. 2016, eq. 15)
    capacity    ... + beta(step) |KL - C min(1, step / steps)|                   (Burgess et al. 2018, eq. 8)

The KL is the formula where there is one (`kl="auto"`), else or with `kl="monte_carlo"` the mean of log q(z|x) - log p(z) at the draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax.numpy as jnp

from vaeflow.build import TRACED, Count, NonNegative
from vaeflow.model import Array
from vaeflow.objectives import bounds, regularisers
from vaeflow.objectives.objective import Draws, Objective
from vaeflow.objectives.schedules import Schedule, scheduled
from vaeflow.record import recorded

Divergence = Literal["auto", "monte_carlo"]


@recorded
def elbo(*, k: Count = 1, beta: Annotated[Schedule | NonNegative, TRACED] = 1.0, kl: Divergence = "auto") -> Objective:
    """-E_q[log p(x|z)] + beta(step) KL, with k draws per example."""
    return _weighted("elbo", k, beta, kl, lambda groups, size, step: jnp.sum(groups))


@recorded
def free_bits(
    *,
    nats: Annotated[NonNegative, TRACED],
    k: Count = 1,
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    kl: Divergence = "auto",
) -> Objective:
    """nats: the floor per latent dimension (vae) or per level (layered, ladder): see `Draws.group_size`. A KL without a formula, or
    with kl="monte_carlo", is one group whose floor is that of all dimensions or levels together."""
    return _weighted("free_bits", k, beta, kl, lambda groups, size, step: regularisers.free_bits(groups, nats * size))


@recorded
def capacity(
    *,
    nats: Annotated[NonNegative, TRACED],
    steps: Count,
    k: Count = 1,
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    kl: Divergence = "auto",
) -> Objective:
    """nats: C, which is reached after `steps` steps; beta is Burgess et al.'s gamma."""

    def rate(groups, size, step):
        del size
        return regularisers.capacity(jnp.sum(groups), nats * jnp.minimum(1.0, jnp.asarray(step) / steps))

    return _weighted("capacity", k, beta, kl, rate)


def _weighted(kind: str, k: int, beta: Schedule | float, kl: Divergence, rate: Callable[[Array, int, Any], Array]) -> Objective:
    """recon + beta(step) rate(groups [G], dimensions of a group, step)."""
    weight_of = scheduled(beta)

    def loss(own, key, draws, step):
        del own, key
        recon = -jnp.mean(bounds.elbo(draws.log_x(draws.z)))
        groups, size = _groups(draws, kl)
        weight = weight_of.at(step)
        total = recon + weight * rate(groups, size, step)
        return total, {"loss": total, "recon": recon, "kl": jnp.sum(groups), "beta": weight}

    return Objective(loss, k, kind=kind)


def _groups(draws: Draws, kl: Divergence) -> tuple[Array, int]:
    """(the batch's mean KL by groups [G], the dimensions that a group counts)."""
    if draws.kl is not None and kl == "auto":
        return jnp.mean(draws.kl, axis=-1), draws.group_size
    assert draws.log_q is not None
    count = 1 if draws.kl is None else len(draws.kl)
    return jnp.mean(bounds.elbo(draws.log_q - draws.log_z(draws.z)))[None], draws.group_size * count
