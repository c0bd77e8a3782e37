"""Estimators of log p(x) for any Model, from its one-draw `log_prob`; k never enters a model.

With log-weights log w_1..k (draws of log_prob, E[w] = p(x)):

    IWAE-k   log p_k(x) = log 1/k sum_i w_i          E <= log p(x), grows with k       (Burda, Grosse, Salakhutdinov 2015)
    ELBO     1/k sum_i log w_i
    ESS      (sum w)^2 / sum w^2                     effective number of the k draws
    MC s.e.  sqrt(1/ESS - 1/k)                       of log p_k(x), by the delta method
    Pareto-k shape of the upper tail of the w        above 0.7 the estimate is unreliable (Vehtari et al. 2015, PSIS)

A scan over chunks, in each a vmap over keys: what does not depend on the key (the encoder) runs once per chunk. The sums are
streamed, so memory does not grow with k, except for the min(k/5, 3 sqrt k) largest log-weights that Pareto-k needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.model import Array, Model, Params
from vaeflow.training.dependence import reads

# Fewer draws than this in the tail say nothing about its shape.
_SMALLEST_TAIL = 5


def tail_size(k: int) -> int:
    """M = min(k/5, 3 sqrt k), the tail to which Pareto-k is fitted; 0 when that is too few."""
    size = math.ceil(min(k / 5, 3 * math.sqrt(k)))
    return size if size >= _SMALLEST_TAIL else 0


@functools.lru_cache(maxsize=16)
def importance(model: Model, k: int, chunk: int) -> Example:
    """One example -> log_prob (IWAE-k), elbo, ess, se, and `tail` [M + 1], the largest log-weights, descending.

    Draw i has the key fold_in(example's key, i), so the result does not depend on `chunk`, and the first draws of a larger
    k are those of a smaller one. k need not be a multiple of chunk.
    """
    if k < 1 or chunk < 1:
        raise UserError(f"eval.k={k} and eval.chunk={chunk} must be at least 1")
    assert model.log_prob is not None
    log_prob, chunk = model.log_prob, min(chunk, k)
    keep = tail_size(k) + 1

    def fn(params, key, batch):
        def draw(i: Array) -> Array:
            return log_prob(params, jax.random.fold_in(key, i), batch)[0]

        def step(carry, start):
            top, scale, total, squares, plain = carry
            i = start + jnp.arange(chunk)
            raw = jax.vmap(draw)(i)
            log_w = jnp.where(i < k, raw, -jnp.inf)
            new = jnp.maximum(scale, log_w.max())
            safe = jnp.where(new == -jnp.inf, 0.0, new)  # all weights zero so far: exp(-inf) instead of a NaN
            weight, shrink = jnp.exp(log_w - safe), jnp.exp(scale - safe)
            total = total * shrink + weight.sum()
            squares = squares * shrink**2 + (weight**2).sum()
            plain += jnp.where(i < k, raw, 0.0).sum()
            top = jax.lax.top_k(jnp.concatenate([top, log_w]), keep)[0]
            return (top, new, total, squares, plain), None

        dtype = jax.eval_shape(draw, jax.ShapeDtypeStruct((), jnp.int32)).dtype
        zero, lowest = jnp.zeros((), dtype), jnp.full((), -jnp.inf, dtype)
        start = (jnp.full(keep, -jnp.inf, dtype), lowest, zero, zero, zero)
        (top, scale, total, squares, plain), _ = jax.lax.scan(step, start, jnp.arange(0, k, chunk))
        ess = total**2 / squares
        return {
            "log_prob": scale + jnp.log(total / k),
            "elbo": plain / k,
            "ess": ess,
            "se": jnp.sqrt(jnp.maximum(1 / ess - 1 / k, 0.0)),
            "tail": top,
        }

    return fn


@functools.lru_cache(maxsize=16)
def average(model: Model, draws: int, chunk: int = 0) -> Example:
    """One example -> log_prob, the mean of `draws` draws: ELBO of a "weight", the bound, the estimate; of more than one draw also `se`,
    its Monte Carlo standard error.

    chunk: draws at a time (0: all). Draw i has the key fold_in(example's key, i), whatever the chunk.
    """
    assert model.log_prob is not None
    log_prob, chunk = model.log_prob, min(chunk or draws, draws)

    def fn(params, key, batch):
        def draw(i: Array) -> Array:
            return log_prob(params, jax.random.fold_in(key, i), batch)[0]

        if draws == 1:
            return {"log_prob": draw(jnp.zeros((), jnp.int32))}

        def step(carry, start):
            i = start + jnp.arange(chunk)
            value = jax.vmap(draw)(i)
            count, mean, squares = carry  # of the differences to the mean, which loses no digits (Welford 1962, by chunks)
            new = jnp.minimum(chunk, draws - start)
            here = jnp.where(i < draws, value, 0.0).sum() / new
            apart = jnp.where(i < draws, (value - here) ** 2, 0.0).sum()
            gap, total = here - mean, count + new
            return (total, mean + gap * new / total, squares + apart + gap**2 * count * new / total), None

        dtype = jax.eval_shape(draw, jax.ShapeDtypeStruct((), jnp.int32)).dtype
        zero = jnp.zeros((), dtype)
        (_, mean, squares), _ = jax.lax.scan(step, (jnp.zeros((), jnp.int32), zero, zero), jnp.arange(0, draws, chunk))
        return {"log_prob": mean, "se": jnp.sqrt(squares / (draws - 1) / draws)}

    return fn


def log_likelihood(
    model: Model, params: Params, split: Split, key: Array, *, k: int, chunk: int, batch: int, **options: Any
) -> dict[str, np.ndarray]:
    """Per-example arrays [N] over a whole split; `options` are those of `map_split.map_split`.

    density "exact": log_prob alone. "bound", "estimate": log_prob, the mean of k draws, and se (of the Monte Carlo); one draw of a model
    that reads no key. "weight": log_prob (IWAE-k), elbo, ess, se (of the Monte Carlo) and pareto_k (NaN when k < 21).
    """
    return prepare_log_likelihood(model, params, split, key, k=k, chunk=chunk, batch=batch, **options)(params)


def prepare_log_likelihood(
    model: Model, shapes: Params, split: Split, key: Array, *, k: int, chunk: int, batch: int, **options: Any
) -> Callable[..., dict[str, np.ndarray]]:
    """(params, another key or None) -> `log_likelihood`; a second call compiles nothing. shapes: the parameters or their shapes."""
    if model.log_prob is None:
        raise UserError("this model has no density: log_prob is not available")
    if model.density != "weight":
        draws = k if model.density in ("bound", "estimate") and draws_noise(model, shapes, split) else 1
        averages = map_split(average(model, draws, chunk), split, key, batch=batch, draws=draws, **options)
        return lambda params, key=None: gather(averages(params, key))
    weights = map_split(importance(model, k, chunk), split, key, batch=batch, draws=k, **options)

    def run(params: Params, key: Array | None = None) -> dict[str, np.ndarray]:
        return gather(part | {"pareto_k": pareto_k(part.pop("tail"))} for part in weights(params, key))

    return run


def draws_noise(model: Model, params: Params, split: Split) -> bool:
    """True if the model's log_prob depends on its key."""
    assert model.log_prob is not None
    one = {
        name: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for name, a in (("x", split.x), ("context", split.context)) if a is not None
    }
    shapes = jax.eval_shape(lambda p: p, params)
    return reads(model.log_prob, (shapes, jax.eval_shape(lambda: jax.random.key(0)), one), 1)


def bound(model: Model, params: Params, split: Split, key: Array, *, draws: int = 1, batch: int, **options: Any) -> tuple[float, float]:
    """(mean over the split of the mean of `draws` draws of log_prob, its standard error over examples)."""
    return mean_se(gather(map_split(average(model, draws), split, key, batch=batch, draws=draws, **options)(params))["log_prob"])


def mean_se(values: np.ndarray) -> tuple[float, float]:
    """The mean over examples and its standard error s / sqrt(N), s the sample standard deviation, in float64."""
    values = np.asarray(values, np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return float(values.mean()), float(spread / math.sqrt(len(values)))


def pareto_k(tail: np.ndarray) -> np.ndarray:
    """The shape of a generalized Pareto distribution fitted to the tails [N, M + 1] of log-weights, descending -> [N].

    Exceedances over the smallest kept weight; Zhang & Stephens (2009), "A new and efficient estimation method for the
    generalized Pareto distribution", with the weak prior of PSIS (10 observations at 0.5). Equal weights have no tail: 0.
    """
    size = tail.shape[1] - 1
    if size < _SMALLEST_TAIL:
        return np.full(len(tail), np.nan)
    slices = [tail[i : i + 256] for i in range(0, len(tail), 256)]  # bounds the [n, grid, M] array
    return np.concatenate([_fit(np.asarray(part, np.float64), size) for part in slices])


def _fit(tail: np.ndarray, size: int) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        weight = np.exp(tail - tail[:, :1])
    x = (weight[:, :size] - weight[:, size:])[:, ::-1]  # [n, M], ascending
    quartile, largest = x[:, int(size / 4 + 0.5) - 1], x[:, -1]
    fit = quartile > 0  # else so many ties (or an underflow over 700 nats) that nothing can be fitted
    grid = 30 + int(math.sqrt(size))
    theta = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = 1 / largest[:, None] + theta / (3 * quartile[:, None])  # [n, grid], all below 1/largest
        shape = np.log1p(-theta[:, :, None] * x[:, None, :]).mean(-1)
        score = size * (np.log(-theta / shape) - shape - 1)
        posterior = np.exp(score - score.max(-1, keepdims=True))
        mean = (theta * posterior).sum(-1) / posterior.sum(-1)
        k = np.log1p(-mean[:, None] * x).mean(-1)
    k = (k * size + 10 * 0.5) / (size + 10)
    constant = largest < 1e-5  # float32 rounding of equal log-weights
    finite = np.isfinite(tail[:, 0])
    return np.where(finite, np.where(constant, 0.0, np.where(fit, k, np.inf)), np.nan)
