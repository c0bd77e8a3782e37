"""Continuous normalizing flow: an ordinary differential equation as an invertible layer (Chen et al. 2018; Grathwohl et al. 2019, FFJORD).

    dx/dt = f(x, t, c),    x(0) the data, x(1) the latent, c the context;    log |det dx(1)/dx(0)| = int_0^1 tr J dt,    J = df/dx

f is a network whose head starts at zero, so the layer starts as the identity. The solver's steps are fixed, in training and in evaluation:
gradients are those of the steps, by reverse mode. `inverse_and_log_det` integrates from 0 to 1 and `forward` from 1 to 0, so one undoes
the other, and log_det is that of the map, up to the solver's error: O(steps^-p), p the solver's order.

    exact       tr J by one vector-Jacobian product a dimension
    hutchinson  e J e, e a probe with entries +-1, one an example for the whole solve: unbiased, at one product

Too few steps are exploited by training: where |J| exceeds about one over the step, the solved log_det is not that of the map, and the
"density" integrates to more than 1 (the integral on a grid, or the same parameters with more steps, shows it). More steps prevent it, or
the penalties of training (Finlay et al. 2020), which make trajectories straight and the field smooth:

    R = kinetic int_0^1 |f|^2 dt + jacobian int_0^1 ||J||_F^2 dt,    ||J||_F^2 from the same products: the sum of |e_i J|^2, or |e J|^2

A layer has no loss of its own: in training (train=True) R is subtracted from log_det, in either direction, and never in evaluation. The
training losses of a flow, -log p, and of a VAE with this prior or posterior, log q - log p with z drawn from q, then contain + R, in nats
an example. Objectives with a path derivative (elbo_path, iwae_path, dreg) score their own draws by the inverse, where R has the wrong
sign: leave both coefficients at 0 for a posterior there. Finlay et al.'s code divides the squares by the dimension, halves the first, and
adds them to bits per dimension: its coefficients are 2 / ln 2 times `kinetic` and 1 / ln 2 times `jacobian`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.build import Count, NonNegative
from vaeflow.diffusion.ode import EXACT_TRACE, SolverName, derivatives, solve
from vaeflow.errors import UserError
from vaeflow.nets.embedding import Embedding
from vaeflow.nets.net import Net
from vaeflow.record import recorded


@recorded
def cnf(
    *,
    net: Net,
    embedding: Embedding | None = None,
    images: bool = False,
    solver: SolverName = "rk4",
    steps: Count = 16,
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    kinetic: NonNegative = 0.0,
    jacobian: NonNegative = 0.0,
) -> Layer:
    """See the module's docstring. Parameters: net, and time of an embedding.

    Args:
        net: f; its context is the time, or the time's features, and then c.
        embedding: features of t; None: t itself, as in FFJORD. High frequencies need more steps.
        images: whether an event is an image [H, W, C]; a vector [D] otherwise.
        solver: euler, midpoint, heun, rk4 or dopri5, of 1, 2, 2, 4 and 6 evaluations of f a step.
        steps: number of equal steps.
        trace: of training with a key; auto: exact for at most 64 dimensions. Without a key and in evaluation it is exact.
        kinetic, jacobian: coefficients of the penalties, per unit of squared data.

    Example:
        layer = cnf(net=concat_squash(activation="tanh"), steps=8, kinetic=0.01, jacobian=0.01)
    References: Chen et al. 2018 (1806.07366); Grathwohl et al. 2019 (1810.01367); Finlay et al. 2020 (2002.02798).
    """
    rank = 3 if images else 1

    def conditions(params, t, context):
        """[C'] or [B, C']: what the network sees beside x."""
        time = t[..., None] if embedding is None else embedding.features(params["time"], t)
        return time if context is None else jnp.concatenate([time.astype(context.dtype), context], axis=-1)

    def init(key, x, context=None):
        if x.ndim != rank + 1:
            raise UserError(f"cnf: images={images} needs events {'[H, W, C]' if images else '[D]'}; here they have the shape {x.shape[1:]}")
        key_net, key_time = jax.random.split(key)
        own = {} if embedding is None else {"time": embedding.init(key_time)}
        first = None if context is None else jnp.broadcast_to(context, (len(x), context.shape[-1]))[0]
        module = net.module(x.shape[1:], rank, True)
        return own | {"net": module.init(key_net, x[0], conditions(own, jnp.zeros((), x.dtype), first))["params"]}

    def bijector(params, context=None, key=None, train=False, **_):
        def integrate(x, t0, t1):
            lead, event = x.shape[: x.ndim - rank], x.shape[x.ndim - rank :]
            rows, module = math.prod(lead), net.module(event, rank, True)
            probed = train and (trace == "hutchinson" or (trace == "auto" and math.prod(event) > EXACT_TRACE))
            weights = (kinetic, jacobian) if train else (0.0, 0.0)

            def one(x, context, key):
                probe = None if key is None else jax.random.rademacher(key, event, x.dtype)

                def both(t, state):
                    def velocity(x) -> Any:
                        return module.apply({"params": params["net"]}, x, conditions(params, t.astype(x.dtype), context))

                    slope, divergence, norm = derivatives(velocity, state[0], probe)
                    penalty = weights[0] * jnp.sum(slope**2) + weights[1] * norm if any(weights) else 0.0
                    return slope, divergence - (t1 - t0) * penalty

                return solve(both, (x, jnp.zeros((), x.dtype)), t0, t1, solver=solver, steps=steps)[0]

            own = None if context is None else jnp.broadcast_to(context, (*lead, context.shape[-1])).reshape(rows, -1)
            keys = None if key is None or not probed else jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(rows))
            end, log_det = jax.vmap(one)(x.reshape(rows, *event), own, keys)
            return end.reshape(x.shape), log_det.reshape(lead)

        return Bijection(lambda z: integrate(z, 1.0, 0.0), lambda x: integrate(x, 0.0, 1.0), rank)

    return Layer(init, bijector)
