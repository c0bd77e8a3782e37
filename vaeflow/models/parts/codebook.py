"""A codebook of K vectors that follows its encodings by exponential moving averages (van den Oord, Vinyals, Kavukcuoglu 2017,
"Neural discrete representation learning", appendix A.1).

For encodings e_1 .. e_N of a batch, with a(i) = argmin_k |e_i - c_k| and the decay g:

    n_k <- g n_k + (1 - g) 1/N sum_i [a(i) = k]            how often the code k is used
    m_k <- g m_k + (1 - g) 1/N sum_i [a(i) = k] e_i
    c_k  = m_k / n'_k,      n'_k = n (n_k + s) / (n + K s),  n = sum_k n_k      (Laplace smoothing s)

The paper sums over the batch where this averages: the same c_k, with s in units of n, which is 1. So the average of the statistics of
equal shares is that of the whole batch, and several devices keep the codebook of one.

Shapes: encodings [..., d], codebook [K, d], codes [...] int32. Statistics: {"counts": n [K], "sums": m [K, d]}.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.model import Array, Params


def vectors(stats: Params, smoothing: float) -> Array:
    """The codebook c [K, d]."""
    n = stats["counts"]
    total = jnp.sum(n)
    return stats["sums"] / (total * (n + smoothing) / (total + len(n) * smoothing))[:, None]


def nearest(e: Array, codebook: Array) -> tuple[Array, Array]:
    """(codes a(i), squared distances |e_i - c_a(i)|^2), both [...]."""
    # In full precision: a device's fast products would choose another of two codes that are nearly as close.
    cross = jnp.matmul(e, codebook.T.astype(e.dtype), precision=jax.lax.Precision.HIGHEST)
    codes = jnp.argmin(jnp.sum(codebook**2, axis=-1) - 2 * cross, axis=-1).astype(jnp.int32)
    return codes, jnp.sum((e - codebook[codes]) ** 2, axis=-1)


def start(key: Array, e: Array, k: int) -> Params:
    """Statistics whose codebook is k of the encodings [N, d], each drawn with a probability proportional to its squared distance to the
    nearest one before (k-means++, Arthur and Vassilvitskii 2007): equal encodings, of an image's empty corners, give one code."""

    def pick(gap, key):
        chosen = e[jax.random.categorical(key, jnp.log(gap))]
        return jnp.minimum(gap, jnp.sum((e - chosen) ** 2, axis=-1)), chosen

    anywhere = jnp.full(len(e), jnp.finfo(e.dtype).max)
    _, chosen = jax.lax.scan(pick, anywhere, jax.random.split(key, k))
    return {"counts": jnp.full(k, 1 / k), "sums": chosen / k}


def averaged(stats: Params, e: Array, codes: Array, decay: float) -> Params:
    """The statistics moved towards those of encodings [N, d] with their codes [N]."""
    chosen = jax.nn.one_hot(codes, len(stats["counts"]), dtype=e.dtype)  # no scatter: on some devices its sums have no fixed order
    now = {"counts": jnp.mean(chosen, axis=0), "sums": jnp.matmul(chosen.T, e, precision=jax.lax.Precision.HIGHEST) / len(e)}
    return {name: decay * stats[name] + (1 - decay) * now[name] for name in now}


def revived(stats: Params, old: Params, key: Array, e: Array, gap: Array, below: float) -> Params:
    """The statistics with codes that are hardly used put on encodings that are badly served: where n_k < below n / K before the step
    (`old`), n_k = n / K and c_k is an encoding, drawn in proportion to its squared distance `gap` [N]. For one device: a mean over several
    is no encoding.
    """
    n = old["counts"]
    share = jnp.mean(n)
    dead = n < below * share
    chosen = e[jax.random.categorical(key, jnp.log(gap), shape=n.shape)]
    counts = jnp.where(dead, share, stats["counts"])
    return {"counts": counts, "sums": jnp.where(dead[:, None], share * chosen, stats["sums"])}


def perplexity(codes: Array, k: int) -> Array:
    """exp of the entropy of the codes' frequencies: 1 for one code, k for all equally often."""
    share = jnp.mean(jax.nn.one_hot(codes.ravel(), k), axis=0)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))
