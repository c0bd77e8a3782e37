"""Corruption of categories by Markov chains, and the bound on the likelihood of a model that reverses one (D3PM, Austin et al. 2021).

    q(x_i | x_(i-1)) = Cat(x_(i-1) Q_i),  q(x_i | x_0) = Cat(x_0 Qbar_i),  Qbar_i = Q_1 ... Q_i,  i = 1 .. N,    x one-hot rows [S]
    q(x_(i-1) | x_i, x_0)  is proportional to  q(x_i | x_(i-1)) q(x_(i-1) | x_0)
    p(x_(i-1) | x_i)       is proportional to  q(x_i | x_(i-1)) sum_x0 q(x_(i-1) | x_0) e^l(x_0)           the x0-parameterization, eq. 4
    -log p(x_0) <= KL(q(x_N | x_0) || prior) + sum_i E KL(q(x_(i-1) | x_i, x_0) || p(x_(i-1) | x_i))       at i = 1 it is -log p(x_0 | x_1)

The logits l are a network's, of x_i and i. Read by eq. 4, softmax(l + log q(x_i | x_0)) is p(x_0 | x_i): what x_i itself says of its own
category is exact, and l is what the other entries say. Two things follow for an absorbing state without a rule for them: the state has no
probability at i = 0, and entries that are not absorbed are kept. (The authors' program takes softmax(l) itself as p(x_0 | x_1). The bound
of the two forms is the same for an absorbing state; otherwise it is with eq. 4 at every i that a perfect model reaches the entropy.)

In continuous time, of a chain alphabar(t) x_0 + (1 - alphabar(t)) pi that leaves x at the rate beta = -alphabar' / alphabar:

    -log p(x_0) <= int_0^1 E beta pi(x_t) sum_(y != x_t) [s_y - r_y + r_y log(r_y / s_y)] dt,   r = q(y | x_0) / q(x_t | x_0),   s that of p

(Campbell et al. 2022, arXiv 2205.14987). For a mask it is E -alphabar' / (1 - alphabar) times the cross-entropy of the masked entries: a
masked language model, averaged over shares of masks (Sahoo et al. 2024, arXiv 2406.07524; Shi et al. 2024, arXiv 2406.04329).

Data are integers below K, states integers below S: S = K, or K + 1 with a mask. Everything is for one example, or one entry; `...` are
the axes of an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array, Params

_TINY = 1e-37


class Chain(NamedTuple):
    """A Markov chain x_0, ..., x_N of states; i [] may be traced.

    marginal    (p [..., S], i) -> p Qbar_i [..., S]
    step        (x [...], i >= 1) -> q(x_i = x | x_(i-1) = .) [..., S]
    from_data   (x [...], i) -> q(x_i = x | x_0 = .) [..., S]
    prior       [S], the distribution of x_N for the sampler
    remask      (w [..., S], x [...], i, eta) -> probabilities of x_(i-1) [..., S] where masks also come back; None: without a mask
    """

    marginal: Callable[[Array, Array | int], Array]
    step: Callable[[Array, Array | int], Array]
    from_data: Callable[[Array, Array | int], Array]
    prior: Array
    remask: Callable[[Array, Array, Array | int, float], Array] | None = None


class Corruption(NamedTuple):
    """init       (x [B, *event], K, T) -> params, constants that depend on the data; {} for none
    chain      (params, K, T, times) -> the Chain of these increasing times, from 0 to T; T = 0: real times from 0 to 1
    prior      K -> [S], numpy
    alphabar   t [] -> [], of a chain alphabar x_0 + (1 - alphabar) prior in continuous time; None where there is none
    examples   how many examples `init` is best given; 0: it does not read them
    """

    init: Callable[[Array, int, int], Params]
    chain: Callable[[Params, int, int, np.ndarray], Chain]
    prior: Callable[[int], np.ndarray]
    alphabar: Callable[[Array], Array] | None = None
    examples: int = 0
    spec: Any = None  # how it was made, see record.py


def log_reverse(chain: Chain, w: Array, x: Array, i: Array | int) -> Array:
    """log p(x_(i-1) | x_i = x) [..., S] of weights w = e^l [..., S] of x_0; with w one-hot log q(x_(i-1) | x_i, x_0)."""
    both = chain.step(x, i) * chain.marginal(w, i - 1)
    return log_of(both) - log_of(jnp.sum(both, -1, keepdims=True))


def log_denoised(chain: Chain, w: Array, x: Array, i: Array | int) -> Array:
    """log p(x_0 | x_i = x) [..., S]."""
    both = w * chain.from_data(x, i)
    return log_of(both) - log_of(jnp.sum(both, -1, keepdims=True))


def term(chain: Chain, w: Array, x0: Array, x: Array, i: Array | int) -> Array:
    """KL(q(x_(i-1) | x_i, x_0) || p(x_(i-1) | x_i)) [...] at x_i = x, in nats."""
    log_q = log_reverse(chain, jax.nn.one_hot(x0, w.shape[-1], dtype=w.dtype), x, i)
    return _kl(log_q, log_reverse(chain, w, x, i))


def prior_term(chain: Chain, x0: Array, n: int) -> Array:
    """KL(q(x_N | x_0) || prior) [...], n the number N of steps."""
    q = chain.marginal(jax.nn.one_hot(x0, len(chain.prior), dtype=chain.prior.dtype), n)
    return _kl(log_of(q), log_of(chain.prior))


def rate_term(alphabar: Callable[[Array], Array], prior: Array, w: Array, x0: Array, x: Array, t: Array) -> Array:
    """The integrand of the bound in continuous time [...], at x_t = x and t in (0, 1); w [..., S] sums to 1."""
    left, change = jax.jvp(alphabar, (t,), (jnp.ones_like(t),))
    here = jax.nn.one_hot(x, len(prior), dtype=w.dtype)

    def ratios(w):
        m = left * w + (1 - left) * prior
        own = jnp.sum(m * here, -1, keepdims=True)
        return jnp.where(prior[x][..., None] > 0, m, 1) / jnp.where(prior[x][..., None] > 0, own, 1)

    r, s = ratios(jax.nn.one_hot(x0, len(prior), dtype=w.dtype)), ratios(w)
    gap = s - r + r * (log_of(r) - log_of(s))
    return -change / left * prior[x] * jnp.sum(jnp.where(here > 0, 0, gap), -1)


def log_of(p: Array) -> Array:
    """log p, finite where p is 0 (or below, by rounding), with a finite gradient."""
    return jnp.log(jnp.maximum(p, _TINY))


def _kl(log_q: Array, log_p: Array) -> Array:
    q = jnp.exp(log_q)
    return jnp.sum(jnp.where(q > 1e-20, q * (log_q - log_p), 0), -1)
