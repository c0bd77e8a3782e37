"""Cells of one structure as one program: their states stacked, [G, ...] a leaf, and a step that is a vmap of the step of one.

Such cells differ in their seed and in `numbers`, which are arguments of the step: the model and the optimiser are built inside the vmap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow import data, models, rng, schema
from vaeflow.config import OF_FROZEN, is_frozen, plain
from vaeflow.model import Array, Params
from vaeflow.training import optimizer
from vaeflow.training.loop import Validator, make_take
from vaeflow.training.recorder import Validation
from vaeflow.training.setup import Experiment
from vaeflow.training.step import State, all_finite, make_step


class Stack(NamedTuple):
    """What the step of G cells reads and never changes: [G, ...], but for `arrays` where all read the same data."""

    fixed: Params
    arrays: Any
    key: Array
    data_key: Array
    numbers: dict[str, Array]


def numbers(config: Any) -> dict[str, float]:
    """{key: its value} of what this config lets be traced: the learning rate, and the numbers of the model that are marked TRACED."""
    return {"optim.learning_rate": config.optim.learning_rate, **schema.traced(config)}


def structure(config: Any) -> str:
    """What the cells of a stack have in common: everything but the seed, `numbers`, and what comes after training. With eval.select
    a measure chooses `best` during training, so its settings and the sampling options count."""
    selects = config.eval.get("select", "loss") != "loss"
    out = plain(config) | {"seed": 0, **({} if selects else {"eval": 0, "sample": 0})}
    for section, name in models.frozen_arguments(config):  # their parameters are among the fixed leaves
        if out[section] and is_frozen(own := out[section][name]):
            out[section] = out[section] | {name: own | {"from": "", "sha256": "", **OF_FROZEN}}
    for name in numbers(config):
        *groups, key = name.split(".")
        schema.value_at(out, ".".join(groups))[key] = 0
    return json.dumps(out, sort_keys=True)


def one_source(xs: Sequence[Experiment]) -> bool:
    """True if cells of one structure read the same data: the seed draws no examples, or they have one seed."""
    return not xs[0].source.seeded or len({x.config.seed for x in xs}) == 1


def make_stack(xs: Sequence[Experiment], fixed: Sequence[Params], feeds: Sequence[data.Feed]) -> Stack:
    """The Stack of cells, with their fixed leaves and their feeds."""
    keys, values = [rng.run_keys(x.config.seed) for x in xs], [numbers(x.config) for x in xs]
    arrays = feeds[0].arrays if one_source(xs) or feeds[0].arrays is None else stack([feed.arrays for feed in feeds])
    return Stack(
        stack(fixed),
        jax.tree.map(jnp.asarray, arrays),
        jnp.stack([noise for noise, _ in keys]),
        jnp.stack([binary for _, binary in keys]),
        {name: jnp.asarray([v[name] for v in values], jnp.float32) for name in values[0]},
    )


def make_stacked_step(xs: Sequence[Experiment]) -> Callable[[State, Stack, Any, Array], tuple[State, dict[str, Array]]]:
    """step(states, stack, chunks, i) -> (states, metrics): the i-th step of a dispatch, of every cell."""
    x = xs[0]
    take = make_take(x)

    def one(state, own: Stack, chunk, i):
        traced = {key: value for key, value in own.numbers.items() if not key.startswith("optim.")}
        model = models.build_model(x.config, traced)
        tx = optimizer.make_optimizer(x.optim._replace(learning_rate=own.numbers["optim.learning_rate"]), x.train.steps)
        noise = jax.random.fold_in(jax.random.fold_in(own.key, state.step), 0)  # of the first device, as in step.make_dispatch
        batch = take(own.arrays, chunk, i, jax.random.fold_in(own.data_key, state.step))
        return make_step(model, tx, x.optim.ema, accumulate=x.train.accumulate)(state, own.fixed, batch, noise)

    return jax.vmap(one, in_axes=(0, Stack(0, None if one_source(xs) else 0, 0, 0, 0), 0, None))  # type: ignore[arg-type]


def make_dispatch(stacks: Sequence[Sequence[Experiment]], capacity: int) -> Callable[..., tuple[list[State], list[dict[str, Array]]]]:
    """run(states, shared, chunks, active, count) -> (states, logs), each a list over the structures, `active` [G] booleans in it: count <=
    capacity steps of all cells that are active, as one program. As step.make_dispatch has them, log[name] is [G, capacity], `done` and
    `finite` are [G]; a cell whose loss or gradient is not finite stops, the others continue."""
    steps = [make_stacked_step(xs) for xs in stacks]

    def run(states, shared, chunks, active, count):
        def step(i, states, active):
            out, logs = [], []
            for one, state, own, chunk, on in zip(steps, states, shared, chunks, active, strict=True):
                new, metrics = one(state, own, chunk, i)
                out.append(jax.tree.map(lambda a, b, on=on: jnp.where(_wide(on, a), a, b), new, state))
                logs.append(metrics)
            return out, logs

        def go_on(carry):
            i, _, active, _, _ = carry
            return (i < count) & jnp.any(jnp.concatenate(active))

        def body(carry):
            i, states, active, done, logs = carry
            states, metrics = step(i, states, active)
            logs = jax.tree.map(lambda log, value: log.at[:, i].set(value), logs, metrics)
            done = [d + on for d, on in zip(done, active, strict=True)]
            finite = [jnp.isfinite(m["loss"]) & jnp.isfinite(m["grad_norm"]) for m in metrics]
            return i + 1, states, [on & f for on, f in zip(active, finite, strict=True)], done, logs

        first = jnp.zeros((), jnp.int32)
        shapes = jax.eval_shape(step, first, states, active)[1]
        logs = jax.tree.map(lambda s: jnp.zeros((s.shape[0], capacity), s.dtype), shapes)
        done = [jnp.zeros(on.shape, jnp.int32) for on in active]
        _, states, active, done, logs = jax.lax.while_loop(go_on, body, (first, states, active, done, logs))
        sound = [on & jax.vmap(all_finite)(state) for on, state in zip(active, states, strict=True)]
        return states, [log | {"done": d, "finite": f} for log, d, f in zip(logs, done, sound, strict=True)]

    return jax.jit(run, donate_argnums=0)


def make_validate(xs: Sequence[Experiment], validator: Validator) -> Callable[[Params, int], Validation] | None:
    """(params of cell i, i) -> its validation, compiled once for cells that read the same data; None without a validation split."""
    if not xs[0].validates:
        return None
    runs = [validator(x) for x in (xs[:1] if one_source(xs) else xs)]
    return lambda params, i: runs[i % len(runs)](params, rng.eval_key(xs[i].config.seed))


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, [G, ...] a leaf."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(a) for a in leaves]), *trees)


@jax.jit
def at(tree: Any, i: Array | int) -> Any:
    """The i-th of them."""
    return jax.tree.map(lambda a: a[i], tree)


def _wide(flag: Array, like: Array) -> Array:
    """flag [G] with the axes of `like` [G, ...]."""
    return flag.reshape(flag.shape + (1,) * (like.ndim - 1))
