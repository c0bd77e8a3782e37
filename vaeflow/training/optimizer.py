"""The optimiser of a config: clip -> method -> schedule, and the moving average of the parameters.

schedule(t) = learning_rate * warmup(t) * decay(t),   warmup(t) = min(1, (t + 1) / warmup)
decay: constant 1; cosine  final + (1 - final) (1 + cos(pi s / S)) / 2  with s = t - warmup, S = steps - warmup;
       step  decay_rate^floor(s / decay_every); exponential  decay_rate^(s / decay_every);
       stages  decay_rate^i in stage i = 0, 1, ..., which lasts 3^i decay_every steps (Burda et al. 2016)

With optim.groups or optim.turns (parameter_groups.py) each group of parameters has a chain of its own, and t counts the group's updates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaeflow.build import Count, Decay, Fraction, Natural, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.training.parameter_groups import Group, GroupConfig, choose, make_groups


class OptimConfig(NamedTuple):
    """The section `config.optim`; 0 stands for off. name custom: an object of a notebook."""

    name: Literal["adam", "adamw", "adamax", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd", "custom"] = (
        "adam"  # custom: given in a notebook
    )
    learning_rate: Positive = 1e-3
    b1: Decay = 0.9  # first moment; the momentum of sgd
    b2: Decay = 0.999  # second moment; the decay of rmsprop
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0  # decoupled (Loshchilov & Hutter 2019), times the learning rate; adamw, lamb and lion only
    decay_on: Literal["all", "kernels"] = (
        "all"  # what weight_decay acts on: every parameter, or the leaves named kernel (networks' matrices)
    )
    clip: NonNegative = 0.0  # global norm of the gradients; 0: off
    schedule: Literal["constant", "cosine", "step", "exponential", "stages"] = "constant"
    warmup: Natural = 0  # steps of linear warm-up
    decay_every: Count = 1000  # steps; for step, exponential and stages (of the first one)
    decay_rate: Positive = 0.5  # for step, exponential and stages
    final_fraction: Fraction = 0.0  # where cosine ends, as a fraction of learning_rate
    ema: Decay = 0.999  # decay of the moving average of the parameters; 0: off
    # {name: other values of these options for the parameters of that name}, see parameter_groups.py
    groups: Mapping[str, GroupConfig] = MappingProxyType({})
    turns: tuple[str, ...] = ()  # NAME:STEPS, in the order of a cycle, such as critic:5, generator:1; empty: all parameters in every step


class Grouped(optax.GradientTransformation):
    """An optax transformation of parameter groups: optax.partition of one chain per group.

    groups_of    trained parameters, or a tree of their structure, -> the groups
    """

    groups_of: Callable[[Params], tuple[Group, ...]]


def groups_of(tx: optax.GradientTransformation, trained: Params) -> tuple[Group, ...]:
    """The groups of the parameters that an optimiser was made for; empty without optim.groups and optim.turns."""
    return tx.groups_of(trained) if isinstance(tx, Grouped) else ()


def schedule(c: OptimConfig, steps: int, where: str = "optim", group: str = "") -> Callable[[Any], Array]:
    """Learning rate as a function of the step, or for a group of the number of its updates: optax's schedules joined.

    Args:
        c: the options.
        steps: number of updates in the run.
        where: config key of the options, for errors.
        group: name of the group that has these updates, for errors; "" for a whole run.

    Raises:
        UserError: the warm-up is not shorter than the run.
    """
    if c.warmup >= steps and c.warmup > 0:
        total = f"the {steps} updates of {group!r}" if group else f"train.steps={steps}"
        raise UserError(f"{where}.warmup={c.warmup} is invalid; it must be below {total}")
    span, every = max(steps - c.warmup, 1), c.decay_every
    decay: Callable[[Any], Any] = {
        "constant": lambda: optax.constant_schedule(1.0),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, span, c.final_fraction),
        "step": lambda: optax.exponential_decay(1.0, every, c.decay_rate, staircase=True),
        "exponential": lambda: optax.exponential_decay(1.0, every, c.decay_rate),
        "stages": lambda: optax.piecewise_constant_schedule(1.0, {int(end): c.decay_rate for end in stage_ends(every, span)}),
    }[c.schedule]()
    if c.warmup:
        decay = optax.join_schedules([optax.linear_schedule(1 / c.warmup, 1.0, c.warmup - 1), decay], [c.warmup])
    return lambda step: c.learning_rate * decay(jnp.asarray(step, jnp.float32))


def stage_ends(first: int, steps: int) -> np.ndarray:
    """first (1 + 3 + ... + 3^i) for i = 0, 1, ...: the steps at which the stages within `steps` end."""
    ends = first * (3 ** np.arange(1, steps.bit_length() + 1) - 1) // 2
    return ends[ends < steps]


def make_optimizer(c: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The Optax transformation of a config: one chain, or a Grouped one.

    Args:
        c: the section optim.
        steps: number of training steps of the run.

    Returns:
        Without groups and turns, the chain clip -> method. Otherwise a `Grouped`, whose groups are found in the parameters that `init`
        and `update` are given; a UserError about them is raised there.

    Raises:
        UserError: options that do not go together.

    Example:
        >>> tx = make_optimizer(section._replace(groups={"critic": GroupConfig(learning_rate=1e-4)}), 6000)
        >>> opt_state = tx.init({"critic": ..., "generator": ...})
    """
    if c.name == "custom":
        raise UserError("optim.name='custom': this optimiser was an object of a notebook; give it again: vaeflow.fit(..., optimizer=...)")
    if not c.groups and not c.turns:
        return _chain(c, steps)

    def groups(tree: Params) -> tuple[Group, ...]:
        return make_groups(c.groups, c.turns, tree)

    def partition(tree: Params) -> optax.GradientTransformation:
        found = groups(tree)
        labels = {name: group.name for group in found for name in group.names}
        return optax.partition({group.name: _of_group(group, c, steps) for group in found}, labels)

    def init(params: Any) -> Any:
        return partition(params).init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return partition(updates).update(updates, state, params)

    tx = Grouped(init, update)
    tx.groups_of = groups
    return tx


def _of_group(group: Group, c: OptimConfig, steps: int) -> optax.GradientTransformation:
    """The chain of a group, which outside the group's turns returns zeros and keeps its state. Its moments and its schedule count the
    group's own updates, as optax applies the chain in these steps only."""
    own = group.updates(steps)
    if not own:
        raise UserError(f"optim.turns={','.join(c.turns)} is invalid: {group.name!r} has no turn within train.steps={steps}")
    where = f"optim.groups.{group.name}" if group.name in c.groups else "optim"
    chain = _chain(c._replace(**group.config.overrides()), own, where, group.name)
    if not group.turns:
        return chain

    def own_turn(step: Any, **_: Any) -> Array:
        return group.on(step)

    return optax.conditionally_mask(chain, own_turn)


def _chain(c: OptimConfig, steps: int, where: str = "optim", group: str = "") -> optax.GradientTransformation:
    """clip -> method for one set of options."""
    decoupled = ("adamw", "lamb", "lion")
    if c.weight_decay and c.name not in decoupled:
        raise UserError(
            f"{where}.weight_decay={c.weight_decay} needs a decoupled method; {where}.name is {c.name!r}, known: {', '.join(decoupled)}"
        )
    rate = schedule(c, steps, where, group)
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


def grouped_ema_update(groups: Sequence[Group], ema: Params, trained: Params, step: Array, decay: float) -> Params:
    """`ema_update` with groups: the average of a group moves in the group's turns only, and `step` counts the group's own updates."""
    out = {}
    for group in groups:
        out |= choose(group, step, ema_update(group.of(ema), group.of(trained), group.updates(step), decay), group.of(ema))
    return out or ema_update(ema, trained, step, decay)
