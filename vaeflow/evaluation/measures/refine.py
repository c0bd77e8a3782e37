"""Semi-amortised refinement of q(z|x) at test time (Kim et al. 2018, "Semi-amortized variational autoencoders"), and what it tells apart
(Cremer, Li, Duvenaud 2018, "Inference suboptimality in variational autoencoders").

    q0   N(m, diag s^2) as the encoder gives it;    q*   after `steps` steps of Adam on the ELBO of this one example, from q0, over
    (m, log s), the model's parameters as they are

    log p(x) - ELBO[q0]  =  (log p(x) - ELBO[q*])  +  (ELBO[q*] - ELBO[q0])
     inference gap           approximation gap         amortisation gap
                             (the family is too small) (the encoder is not the best of its family)

log p(x) is not known: IWAE-k with q* stands for it, a lower bound in expectation, so the approximation gap is at least what is printed
(up to the Monte Carlo error). The three numbers come from k fresh draws, the same noise for q0 and q*; the mean of log w has no variance
where q is the posterior.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaeflow.build import Count, Positive
from vaeflow.distributions import normal
from vaeflow.errors import UserError
from vaeflow.evaluation.elbo import gaussian
from vaeflow.evaluation.likelihood import tail_size
from vaeflow.evaluation.measures.chains import Target, log_mean, target
from vaeflow.evaluation.measures.iwae import bounded, quality
from vaeflow.evaluation.measures.measure import Evaluation, Finding, latent, mean, monte_carlo, over, posterior_shape
from vaeflow.model import Array

Diagonal = tuple[Array, Array]  # (m, log s), each [*event]


class RefineSettings(NamedTuple):
    """Of the refinement.

    steps          of Adam, the learning rate falling to 0 as a cosine
    learning_rate  at the first step
    draws          of z in a step
    k              fresh draws that the final numbers come from
    """

    steps: Count = 500
    learning_rate: Positive = 0.02
    draws: Count = 8
    k: Count = 1000


def log_weight(aim: Target, q: Diagonal, noise: Array) -> Array:
    """log p(x, z) - log q(z) [] at z = m + s noise, noise [*event]."""
    middle, log_std = q
    z = middle + jnp.exp(log_std) * noise
    return aim.log_joint(z) - normal(middle, jnp.exp(log_std), z.ndim).log_prob(z)


def refined(key: Array, aim: Target, q: Diagonal, s: RefineSettings) -> Diagonal:
    """q* of one example, from q."""
    adam = optax.adam(optax.cosine_decay_schedule(s.learning_rate, s.steps))

    def loss(q: Diagonal, key: Array) -> Array:
        noise = jax.random.normal(key, (s.draws, *q[0].shape))
        return -jax.vmap(lambda e: log_weight(aim, q, e))(noise).mean()

    def step(carry, key):
        q, state = carry
        change, state = adam.update(jax.grad(loss)(q, key), state)
        return (jax.tree.map(jnp.add, q, change), state), None

    return jax.lax.scan(step, (q, adam.init(q)), jax.random.split(key, s.steps))[0][0]


def gaps(run: Evaluation, s: RefineSettings) -> dict[str, np.ndarray]:
    """Per-example arrays [N]: amortised and refined (the ELBOs of q0 and q*), log_p (IWAE-k with q*), and of its weights
    se (the Monte Carlo error), ess and tail [M + 1] (the largest log-weights, descending)."""
    found, shape, chunk = latent(run), posterior_shape(run)[0], run.config.eval.chunk

    def fn(params, key, batch):
        first, second = jax.random.split(key)
        aim = target(found, params, batch, shape)
        known = gaussian(found.posterior(params, batch["x"], batch.get("context")))
        assert known is not None
        q0 = (known[0][0], jnp.log(known[1][0]))
        q1 = refined(first, aim, q0, s)

        def draw(key: Array) -> tuple[Array, Array]:
            noise = jax.random.normal(key, shape)
            return log_weight(aim, q0, noise), log_weight(aim, q1, noise)

        before, after = jax.lax.map(draw, jax.random.split(second, s.k), batch_size=min(chunk, s.k))
        value, ess, se = log_mean(after)
        tail = jax.lax.top_k(after, min(tail_size(s.k) + 1, s.k))[0]
        return {"amortised": before.mean(), "refined": after.mean(), "log_p": value, "se": se, "ess": ess, "tail": tail}

    return over(run, "refine", fn, draws=s.draws * s.steps + s.k)


def needs(run: Evaluation, settings: RefineSettings) -> None:
    """UserError: q(z|x) is no diagonal Gaussian."""
    del settings
    if not posterior_shape(run)[1]:
        raise UserError("q(z|x) is no diagonal Gaussian, whose mean and standard deviation could be refined")


def check(run: Evaluation, settings: RefineSettings) -> dict[str, Finding]:
    """The ELBO before and after refinement, and the gaps."""
    found, s = {name: np.asarray(a, np.float64) for name, a in gaps(run, settings).items()}, settings
    amortised, best, log_p = found["amortised"], found["refined"], found["log_p"]
    weak = quality(found["ess"], found["tail"]).weak
    return {
        "amortised": mean(amortised, "ELBO with the encoder's q(z|x)"),
        "refined": mean(best, f"ELBO with q(z|x) after {s.steps} steps of Adam for each example"),
        "log_p": mean(log_p, f"IWAE-{s.k} with the refined q(z|x): stands for log p(x), {bounded(weak)}"),
        "log_p_mc_se": monte_carlo(found["se"], "log_p", weak),
        "amortisation_gap": mean(best - amortised, "refined - amortised: what the encoder loses"),
        "approximation_gap": mean(log_p - best, "log_p - refined: what a diagonal Gaussian loses, at least"),
        "inference_gap": mean(log_p - amortised, "log_p - amortised: the sum of both"),
    }
