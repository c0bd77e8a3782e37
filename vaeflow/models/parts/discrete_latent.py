"""Factorised distributions over discrete latents as vectors of floats, which a network takes: bits and flattened one-hot vectors.

    Bits      z in {0, 1}^V            log p(z) = sum_v  z_v l_v - softplus(l_v)
    OneHots   z in {0, 1}^(V C)        log p(z) = sum_v  <z_v, log_softmax(l_v)>        V variables of C categories

Both log-probabilities are affine in z, so their expectations are their values at the mean: E_q[log p(z)] = log p(E_q[z]).
"""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp

from vaeflow.model import Array
from vaeflow.objectives import binary_concrete, gumbel_softmax, straight_through


class Bits(distrax.Distribution):
    """V independent Bernoulli variables from their logits [..., V]."""

    def __init__(self, logits: Array):
        super().__init__()
        self._logits = logits

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._logits.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._logits.shape[:-1]

    def log_prob(self, value: Array) -> Array:
        return jnp.sum(value * self._logits - jax.nn.softplus(self._logits), axis=-1)

    def mean(self) -> Array:
        return jax.nn.sigmoid(self._logits)

    def relaxed(self, key: Array, n: int, temperature: Array) -> Array:
        """n draws [n, ..., V] of the binary concrete distribution."""
        return binary_concrete(key, self._logits, temperature, n)

    def hardened(self, soft: Array) -> Array:
        """Relaxed draws as bits, with the gradient of the relaxed ones."""
        return straight_through(soft, (soft > 0.5).astype(soft.dtype))

    def _sample_n(self, key: Array, n: int) -> Array:
        return jax.random.bernoulli(key, self.mean(), (n, *self._logits.shape)).astype(self._logits.dtype)


class OneHots(distrax.Distribution):
    """V independent categorical variables from their logits [..., V, C]."""

    def __init__(self, logits: Array):
        super().__init__()
        self._logits = logits

    @property
    def event_shape(self) -> tuple[int, ...]:
        return (self._logits.shape[-2] * self._logits.shape[-1],)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._logits.shape[:-2]

    def log_prob(self, value: Array) -> Array:
        return jnp.sum(value * _flat(jax.nn.log_softmax(self._logits)), axis=-1)

    def mean(self) -> Array:
        return _flat(jax.nn.softmax(self._logits))

    def relaxed(self, key: Array, n: int, temperature: Array) -> Array:
        """n draws [n, ..., V C] of the Gumbel-softmax distribution."""
        return _flat(gumbel_softmax(key, self._logits, temperature, n))

    def hardened(self, soft: Array) -> Array:
        """Relaxed draws as one-hot vectors, with the gradient of the relaxed ones."""
        categories = self._logits.shape[-1]
        choice = jnp.argmax(soft.reshape(*soft.shape[:-1], -1, categories), axis=-1)
        return straight_through(soft, _flat(jax.nn.one_hot(choice, categories, dtype=soft.dtype)))

    def _sample_n(self, key: Array, n: int) -> Array:
        choice = jax.random.categorical(key, self._logits, shape=(n, *self._logits.shape[:-1]))
        return _flat(jax.nn.one_hot(choice, self._logits.shape[-1], dtype=self._logits.dtype))


def _flat(a: Array) -> Array:
    """[..., V, C] -> [..., V C]."""
    return a.reshape(*a.shape[:-2], -1)


def kl(q: Bits | OneHots, p: Bits | OneHots) -> Array:
    """KL(q || p) = E_q[log q(z) - log p(z)], exact: [*batch]."""
    mean = q.mean()
    return q.log_prob(mean) - p.log_prob(mean)
