"""The protocol of samplers (Sampler, Step), and `walk`, which takes all steps of a grid and ends with Tweedie's formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.diffusion.path import Predict, ProbabilityPath
from vaeflow.model import Array


class Step(NamedTuple):
    """move: (key, x [*event], t [], s [], state) -> (x_s [*event], state). start: x -> the first state (multistep methods keep the last
    prediction in it). tweedie: (x, t) -> the predicted data. nfe: evaluations of the network in a step. adaptive: (x, t, s) ->
    (x_s, NFE []) of a method that chooses its own steps; then `walk` visits the two ends of its grid alone."""

    move: Callable[[Array, Array, Array, Array, Any], tuple[Array, Any]]
    tweedie: Callable[[Array, Array], Array]
    nfe: int = 1
    start: Callable[[Array], Any] = lambda x: ()
    adaptive: Callable[[Array, Array, Array], tuple[Array, Array]] | None = None


class Sampler(NamedTuple):
    """on: (path, predict) -> Step. noisy: whether it adds noise, which requires the score: a Gaussian source, or a path with gamma."""

    on: Callable[[ProbabilityPath, Predict], Step]
    noisy: bool = False
    spec: Any = None  # how it was made, see record.py


def walk(step: Step, key: Array, x: Array, grid: Array, *, denoise: bool = True) -> tuple[Array, Array]:
    """All steps of a grid, as one lax.scan; then the data predicted at the grid's last time (Tweedie's formula), which is > 0.

    Args:
        key: of all steps' noise; deterministic steps ignore it.
        x: [*event] at grid[0], a draw of the source or sigma times one.
        grid: decreasing times [N + 1], see times.grid. denoise: False returns x at grid[-1] instead.

    Returns: (x [*event], NFE []): N nfe + 1, without the last 1 if denoise is False; of an adaptive step what it took instead of N nfe.
    """
    if step.adaptive is not None:
        x, nfe = step.adaptive(x, grid[0], grid[-1])
        return (step.tweedie(x, grid[-1]) if denoise else x), nfe + denoise

    def body(carry, inputs):
        return step.move(inputs[0], carry[0], inputs[1], inputs[2], carry[1]), None

    (x, _), _ = jax.lax.scan(body, (x, step.start(x)), (jax.random.split(key, len(grid) - 1), grid[:-1], grid[1:]))
    nfe = step.nfe * (len(grid) - 1) + denoise
    return (step.tweedie(x, grid[-1]) if denoise else x), jnp.asarray(nfe)
