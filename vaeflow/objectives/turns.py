"""Alternating optimisation: whose turn a training step is.

A cycle gives each player a number of consecutive steps: {"critic": 5, "generator": 1} is five steps of the critic, then one of the
generator (Goodfellow et al. 2014, algorithm 1; Gulrajani et al. 2017, algorithm 1). The loss of a model stays one function. A sum gives
each player its own gradient if the other player's parameters are stopped:

    def loss(params, key, batch, step):
        stopped = jax.lax.stop_gradient(params)
        critic = critic_loss({**stopped, "critic": params["critic"]}, key, batch)
        generator = generator_loss({**stopped, "generator": params["generator"]}, key, batch)
        return critic + generator, {"critic_loss": critic, "generator_loss": generator}

The sum needs no knowledge of the turns and computes both losses in every step. With `turn_of` a model computes the loss of the player
whose turn it is; the optimiser ignores the gradients of the other one:

    def loss(params, key, batch, step):
        return jax.lax.switch(turn_of(step, turns), [critic_loss, generator_loss], params, key, batch), {}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from vaeflow.model import Array


def turn_of(step: Any, turns: Mapping[str, int]) -> Array:
    """Index of the player whose turn a step is, in the order of `turns`.

    Args:
        step: training steps done, an integer or an int32 array; it may be traced.
        turns: {player: consecutive steps in one cycle}, in the order of the cycle.

    Returns:
        An int32 index in 0 .. len(turns) - 1, of the shape of `step`.

    Example:
        >>> [int(turn_of(step, {"critic": 2, "generator": 1})) for step in range(6)]
        [0, 0, 1, 0, 0, 1]
    """
    ends = np.cumsum(list(turns.values()))
    return jnp.sum(jnp.asarray(step)[..., None] % ends[-1] >= ends[:-1], axis=-1, dtype=jnp.int32)


def steps_of(player: str, step: Any, turns: Mapping[str, int]) -> Any:
    """Number of the steps 0 .. step - 1 that were a player's turn: the updates that its parameters have had.

    Args:
        player: a key of `turns`.
        step: training steps done, an integer or an int32 array; it may be traced.
        turns: {player: consecutive steps in one cycle}, in the order of the cycle.

    Returns:
        A number of steps: an integer for an integer `step`, else an int32 array of its shape.

    Example:
        >>> [steps_of("generator", step, {"critic": 2, "generator": 1}) for step in range(6)]
        [0, 0, 0, 1, 1, 1]
    """
    names, lengths = list(turns), list(turns.values())
    cycle, start = sum(lengths), sum(lengths[: names.index(player)])
    into = step % cycle - start
    within = max(0, min(into, turns[player])) if isinstance(step, int) else jnp.clip(into, 0, turns[player])
    return step // cycle * turns[player] + within
