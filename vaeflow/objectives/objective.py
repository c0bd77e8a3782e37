"""Objective: the loss of a model with latent variables as a part of it, a function of draws of q(z|x) and of the densities there.

A family (vae, layered, ladder, discrete_vae) makes the Draws, an objective makes the loss of them, so that every objective works in every
family that it suits. `k` draws per example are the LEADING axis, [k, B, ...]. Everything is in nats per example.

To add one: write a maker (keyword-only, annotated arguments -> Objective) and add its line to OBJECTIVES.

Example:
    def warm_up(*, k: Count = 1, beta: Annotated[Schedule | NonNegative, TRACED] = 1.0) -> Objective:
        weight = scheduled(beta)

        def loss(own, key, draws, step):
            recon, kl = -jnp.mean(draws.log_x(draws.z)), jnp.mean(draws.log_q - draws.log_z(draws.z))
            total = recon + weight.at(step) * kl
            return total, {"loss": total, "recon": recon, "kl": kl, "beta": weight.at(step)}

        return Objective(loss, k, kind="warm_up")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from vaeflow.model import Array, Params

FOR_DISCRETE = "for_discrete"
_Maker = TypeVar("_Maker", bound=Callable[..., Any])


def for_discrete(make: _Maker) -> _Maker:
    """Marks the maker of an objective for discrete latents, whose result has `discrete=True`: errors propose it for such latents alone."""
    setattr(make, FOR_DISCRETE, True)
    return make


class Draws(NamedTuple):
    """k draws z of q(z|x) for a batch, and the densities there.

    z           [k, B, D]
    log_q       log q(z|x) [k, B] as the draw knows it; None for draws of `Objective.draw`
    log_x       z [n, B, D] -> log p(x|z) [n, B], for any number of draws
    log_z       z [n, B, D] -> log p(z) [n, B]
    log_q_path  z [n, B, D] -> log q(z|x) [n, B] with q's parameters under stop_gradient; it inverts a posterior that is a flow
    kl          KL(q(z|x) || p(z)) in groups [G, B] whose sum it is: by dimensions or variables where it has a formula, or by levels;
                None: there is none
    group_size  the number of latent dimensions that a group counts for free bits; without `kl` that of the whole latent
    q           q(z|x), a distrax distribution of batch shape [B]
    prior       key -> B draws of the prior [B, D]
    x           the batch [B, *event] as the networks see it; context: [B, C] or None
    dream       key -> log q(z|x) [B] at B draws (x, z) of the model, which get no gradient; of discrete latents alone
    """

    z: Array
    log_q: Array | None
    log_x: Callable[[Array], Array]
    log_z: Callable[[Array], Array]
    log_q_path: Callable[[Array], Array]
    kl: Array | None
    group_size: int
    q: Any
    prior: Callable[[Array], Array]
    x: Array
    context: Array | None = None
    dream: Callable[[Array], Array] | None = None


class ObjectiveLossFn(Protocol):
    """(loss, metrics): the mean over the batch, and named scalars, among them loss, recon = -E[log p(x|z)] and kl."""

    def __call__(self, own: Params, key: Array, draws: Draws, step: Any, /) -> tuple[Array, dict[str, Array]]: ...


class Objective(NamedTuple):
    """An objective; see the module's docstring.

    loss      (own, key, draws, step) -> (scalar, metrics); own: its parameters, which are params["objective"], or {}
    k         draws per example
    init      (key, draws) -> own, draws with k = 1; or None: it has no parameters
    bound     log w [k, B] -> the bound [B] by which `best` is chosen, log w = log p(x, z) - log q(z|x); None: the ELBO
    draw      (q, key, step) -> z [k, B, D] in place of q's own draws (relaxed ones of discrete latents); or None
    discrete  True: for discrete latents; False: for reparameterised ones
    gaussian  whether it needs a diagonal Gaussian q and the prior N(0, I)
    path      whether it reads log_q_path, so that q must invert its own draws
    kind      its name, for messages
    """

    loss: ObjectiveLossFn
    k: int = 1
    init: Callable[[Array, Draws], Params] | None = None
    bound: Callable[[Array], Array] | None = None
    draw: Callable[[Any, Array, Any], Array] | None = None
    discrete: bool = False
    gaussian: bool = False
    path: bool = False
    kind: str = ""
    spec: Any = None  # how it was made, see record.py
