"""The optimiser of a config: clip -> method -> schedule, and the moving average of the parameters.

schedule(t) = learning_rate * warmup(t) * decay(t),   warmup(t) = min(1, (t + 1) / warmup)
decay: constant 1; cosine  final + (1 - final) (1 + cos(pi s / S)) / 2  with s = t - warmup, S = steps - warmup;
       step  decay_rate^floor(s / decay_every); exponential  decay_rate^(s / decay_every);
       stages  decay_rate^i in stage i = 0, 1, ..., which lasts 3^i decay_every steps (Burda et al. 2016)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaeflow.build import Count, Decay, Fraction, Natural, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array, Params


class OptimConfig(NamedTuple):
    """The section `config.optim`."""

    name: Literal["adam", "adamw", "adamax", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd"]
    learning_rate: Positive
    b1: Decay  # first moment; the momentum of sgd
    b2: Decay  # second moment; the decay of rmsprop
    eps: Positive
    weight_decay: NonNegative  # decoupled (Loshchilov & Hutter 2019), times the learning rate; adamw, lamb and lion only
    decay_on: Literal["all", "kernels"]  # what weight_decay acts on: every parameter, or the leaves named kernel (networks' matrices)
    clip: NonNegative  # global norm of the gradients; 0: off
    schedule: Literal["constant", "cosine", "step", "exponential", "stages"]
    warmup: Natural  # steps of linear warm-up
    decay_every: Count  # steps; for step, exponential and stages
    decay_rate: Positive
    final_fraction: Fraction  # where cosine ends, as a fraction of learning_rate
    ema: Decay  # decay of the moving average of the parameters; 0: off


def schedule(c: OptimConfig, steps: int) -> Callable[[Any], Array]:
    """Learning rate as a function of the step."""
    if c.warmup >= steps and c.warmup > 0:
        raise UserError(f"optim.warmup={c.warmup} is invalid; it must be below train.steps={steps}")
    span = max(steps - c.warmup, 1)
    ends = stage_ends(c.decay_every, span)

    def rate(step: Any) -> Array:
        t = jnp.asarray(step, jnp.float32)
        s = jnp.maximum(t - c.warmup, 0.0)
        decay = {
            "constant": lambda: jnp.ones(()),
            "cosine": lambda: c.final_fraction + (1 - c.final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(s / span, 1.0))),
            "step": lambda: c.decay_rate ** jnp.floor(s / c.decay_every),
            "exponential": lambda: c.decay_rate ** (s / c.decay_every),
            "stages": lambda: c.decay_rate ** jnp.sum(s >= ends),
        }[c.schedule]()
        warm = jnp.minimum(1.0, (t + 1) / c.warmup) if c.warmup else 1.0
        return c.learning_rate * warm * decay

    return rate


def stage_ends(first: int, steps: int) -> np.ndarray:
    """first (1 + 3 + ... + 3^i) for i = 0, 1, ...: the steps at which the stages within `steps` end."""
    ends = first * (3 ** np.arange(1, steps.bit_length() + 1) - 1) // 2
    return ends[ends < steps]


def make_optimizer(c: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The Optax chain."""
    decoupled = ("adamw", "lamb", "lion")
    if c.weight_decay and c.name not in decoupled:
        raise UserError(
            f"optim.weight_decay={c.weight_decay} needs a decoupled method; optim.name is {c.name!r}, known: {', '.join(decoupled)}"
        )
    rate = schedule(c, steps)
    moments: dict[str, Any] = dict(b1=c.b1, b2=c.b2)
    decay: dict[str, Any] = dict(weight_decay=c.weight_decay, mask=_kernels if c.decay_on == "kernels" else None)
    method = {
        "adam": lambda: optax.adam(rate, eps=c.eps, **moments),
        "adamw": lambda: optax.adamw(rate, eps=c.eps, **moments, **decay),
        "adamax": lambda: optax.adamax(rate, eps=c.eps, **moments),
        "nadam": lambda: optax.nadam(rate, eps=c.eps, **moments),
        "radam": lambda: optax.radam(rate, eps=c.eps, **moments),
        "lamb": lambda: optax.lamb(rate, eps=c.eps, **moments, **decay),
        "lion": lambda: optax.lion(rate, **moments, **decay),
        "rmsprop": lambda: optax.rmsprop(rate, decay=c.b2, eps=c.eps),
        "sgd": lambda: optax.sgd(rate, momentum=c.b1 or None),
    }[c.name]()
    return optax.chain(optax.clip_by_global_norm(c.clip), method) if c.clip else method


def _kernels(params: Params) -> Params:
    """True for the leaves named kernel: a flow's scales, shifts and rotations are no weights that small is good for. (Of a Mint layer
    the kernels hold its diagonal as well, whose logarithm then decays to 0.)"""
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", "") == "kernel", params)


def ema_update(ema: Params, trained: Params, step: Array, decay: float) -> Params:
    """ema <- d ema + (1 - d) trained with d = min(decay, (1 + step) / (10 + step)), so that early averages forget the start."""
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda e, p: (d * e + (1 - d) * p).astype(e.dtype), ema, trained)
