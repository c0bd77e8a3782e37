"""State (arrays only), the pure training step, and the program that runs many steps in one dispatch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from vaeflow.build import Count, Natural, Positive
from vaeflow.model import Array, Batch, Model, Params, by_path, merge_params, split_params
from vaeflow.training import optimizer
from vaeflow.training.devices import Devices
from vaeflow.training.parameter_groups import finish_update, only_on_turn


class TrainConfig(NamedTuple):
    """The section `config.train`."""

    steps: Count = 1000  # training steps of the run
    log_every: Count = 50  # steps over which a row of metrics.jsonl is the mean
    eval_every: Count = 500  # steps between evaluations on the whole validation split
    checkpoint_every: Count = 500  # steps between checkpoints
    patience: Natural = 0  # evaluations without improvement before training stops; 0: off
    accumulate: Count = 1  # micro-batches per device, whose gradients are averaged: needs less memory
    dispatch_seconds: Positive = 0.5  # how long one dispatch of many steps is to last
    max_dispatch: Count = 1024  # steps in a dispatch at most


class State(NamedTuple):
    """All that a run carries from step to step. `ema` is empty when the moving average is off."""

    step: Array  # int32, steps done
    trained: Params
    stats: Params
    opt_state: Any
    ema: Params


class StepInputs(NamedTuple):
    """What the step reads and never changes: an argument of the program, never a constant in it."""

    fixed: Params
    arrays: Any  # the resident training split, or None
    key: Array  # of the model's noise
    data_key: Array  # of dynamic binarization and augmentation
    count: Array  # int32, steps in this dispatch


def init_state(
    params: Params,
    tx: optax.GradientTransformation,
    ema: float,
    frozen: frozenset = frozenset(),
    homes: Callable[..., Any] = lambda *_: None,
) -> tuple[State, Params]:
    """(the state at step 0, the fixed leaves): of copies, no array twice, as the state is donated. One program, not one a leaf.
    homes: see Devices.homes."""
    trained, stats, fixed = split_params(params, frozen)
    first = _first(tx, bool(ema))
    return jax.jit(first, out_shardings=homes(first, trained, stats))(trained, stats), fixed


@functools.lru_cache(maxsize=16)
def _first(tx: optax.GradientTransformation, ema: bool) -> Callable[[Params, Params], State]:
    """(trained, stats) -> the state at step 0; one function for one `tx`, so that runs that share it compile it once."""

    def init(trained: Params, stats: Params) -> State:
        first = State(jnp.zeros((), jnp.int32), trained, stats, tx.init(trained), trained if ema else {})
        return jax.tree.map(jnp.copy, first)

    return init


def eval_params(state: State, fixed: Params) -> Params:
    """The parameters that evaluation uses: the moving average where there is one."""
    return merge_params(state.ema or state.trained, state.stats, fixed)


def make_step(
    model: Model, tx: optax.GradientTransformation, ema: float, mean: Callable[[Any], Any] = lambda t: t, accumulate: int = 1
) -> Callable:
    """step(state, fixed, batch, key) -> (state, metrics) on one device's share of the batch; `mean` averages over devices.

    accumulate: number of micro-batches per device; gradients are averaged over them, in the memory of one. Every n-th example is in a
    micro-batch, so sharded examples stay on their device. A loss that compares examples sees one micro-batch.

    The groups of a `tx` with turns that a step does not update keep parameters, optimiser state and moving average; the metric grad_norm is
    the norm of the gradients of the others.
    """

    def gradients(state: State, fixed: Params, batch: Batch, key: Array) -> tuple[Params, dict[str, Array]]:
        def loss_fn(trained):
            return model.loss(merge_params(trained, state.stats, fixed), key, batch, state.step)

        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.trained)
        return grads, {**metrics, "loss": loss}

    def averaged(state: State, fixed: Params, batch: Batch, key: Array) -> tuple[Params, dict[str, Array]]:
        micro_batches = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, accumulate, *a.shape[1:]), 1, 0), batch)

        def add(total, micro_batch):
            return jax.tree.map(lambda t, new: t + new / accumulate, total, gradients(state, fixed, *micro_batch)), None

        first = (jax.tree.map(lambda a: a[0], micro_batches), key)
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda one: gradients(state, fixed, *one), first))
        return jax.lax.scan(add, zero, (micro_batches, jax.random.split(key, accumulate)))[0]

    def step(state: State, fixed: Params, batch: Batch, key: Array) -> tuple[State, dict[str, Array]]:
        grads, metrics = mean((gradients if accumulate == 1 else averaged)(state, fixed, batch, key))
        players = optimizer.groups_of(tx, state.trained)
        updates, opt_state = tx.update(grads, state.opt_state, state.trained)
        trained: Params = optax.apply_updates(state.trained, updates)  # type: ignore[assignment]
        if players:
            trained, grads = (
                finish_update(players, state.step, state.trained, trained),
                only_on_turn(players, state.step, grads),
            )
        stats = state.stats
        if model.update is not None:
            updated = model.update(merge_params(trained, stats, fixed), key, batch, state.step)
            stats = mean(_only(stats, split_params(updated)[1]))
        average = optimizer.grouped_ema_update(players, state.ema, trained, state.step, ema) if ema else {}
        metrics["grad_norm"] = optax.tree.norm(grads)
        return State(state.step + 1, trained, stats, opt_state, average), metrics

    return step


def _only(like: Params, updated: Params) -> Params:
    """The leaves of `updated` that `like` has: statistics that `fixed_from` holds fixed are not set."""
    have = by_path(like)
    return traverse_util.unflatten_dict({path: leaf for path, leaf in by_path(updated).items() if path in have})


@functools.lru_cache(maxsize=4)
def make_dispatch(
    model: Model,
    tx: optax.GradientTransformation,
    ema: float,
    devices: Devices,
    take: Callable[[Any, Any, Array, Array], Batch],
    capacity: int,
    accumulate: int = 1,
) -> Callable[[State, StepInputs, Any], tuple[State, dict[str, Array]]]:
    """run(state, shared, chunk) -> (state, log): `shared.count` <= capacity steps in one program.

    `take(arrays, chunk, i, key)` is the batch of the dispatch's i-th step. log[name] is [capacity], one value a step; steps
    after a non-finite loss or gradient are not taken, so log["done"] < count tells where it was. The number of steps is a
    value, not a shape: any dispatch length runs the same program, and a run's numbers do not depend on it. The same arguments give the same
    function, so a second fit of a model in a notebook compiles nothing.
    """
    step = make_step(model, tx, ema, devices.mean, accumulate)

    def dispatch(state: State, shared: StepInputs, chunk: Any) -> tuple[State, dict[str, Array]]:
        # The keys of all steps at once: in the loop their two hashes are a tenth of a small model's step on a CPU.
        steps = state.step + jnp.arange(capacity)
        keys = jax.vmap(lambda t: jax.random.fold_in(jax.random.fold_in(shared.key, t), devices.index()))(steps)
        data_keys = jax.vmap(lambda t: jax.random.fold_in(shared.data_key, t))(steps)

        def one(state: State, i: Array) -> tuple[State, dict[str, Array]]:
            return step(state, shared.fixed, take(shared.arrays, chunk, i, data_keys[i]), keys[i])

        shapes = jax.eval_shape(one, state, jnp.zeros((), jnp.int32))[1]
        log = {name: jnp.zeros((capacity,), s.dtype) for name, s in shapes.items()}

        def continues(carry):
            i, _, _, finite = carry
            return (i < shared.count) & finite

        def body(carry):
            i, state, log, _ = carry
            state, metrics = one(state, i)
            log = {name: log[name].at[i].set(value) for name, value in metrics.items()}
            return i + 1, state, log, jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])

        done, state, log, finite = jax.lax.while_loop(continues, body, (jnp.zeros((), jnp.int32), state, log, jnp.array(True)))
        return state, {**log, "done": done, "finite": finite & all_finite(state)}

    return devices.map(dispatch)


def all_finite(tree: Any) -> Array:
    """Whether every floating-point leaf is finite: asked of every state before it may be saved."""
    leaves = [jnp.isfinite(a).all() for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.stack(leaves).all() if leaves else jnp.array(True)
