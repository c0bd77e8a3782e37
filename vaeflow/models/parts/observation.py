"""The data end of a VAE: what its encoder sees of x, p(x|z) from its decoder's output, and what a sample shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vaeflow import distributions
from vaeflow.distributions import Distribution, Likelihood
from vaeflow.errors import UserError
from vaeflow.model import Array


class ObservationModel(NamedTuple):
    """x [B, *event] as loaded.

    out         the shape of the decoder's output, (*heads, *event)
    scaled      x -> floats; grey values divided by the largest one
    given       output [..., *out] -> p(x|z)
    show        (key, p(x|z)) -> x: its means for grey values, which are what a picture should show; draws of continuous data, whose
                noise is a part of the density
    fits        x -> None; UserError: its examples are no events
    note        see Model
    """

    out: tuple[int, ...]
    scaled: Callable[[Array], Array]
    given: Callable[[Array], Distribution]
    show: Callable[[Array, Distribution], Array]
    fits: Callable[[Array], None]
    note: str


def observation_model(event: tuple[int, ...], levels: int, likelihood: Likelihood, std: float) -> ObservationModel:
    """The formulas of `likelihood` stand in vaeflow/distributions.py; levels: grey values, 0 for data as they are. UserError: the two
    do not fit together."""
    distributions.check_likelihood(likelihood, levels)
    rank, top = len(event), float(levels - 1) if levels else 1.0

    def scaled(x):
        x = jnp.asarray(x)
        return (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))) / top

    def show(key, p):
        return p.sample(seed=key) if likelihood.startswith("gaussian") and not levels else p.mean()

    def fits(x):
        if jnp.shape(x)[1:] != event:
            raise UserError(f"model.event={event} does not fit the data, whose examples have the shape {jnp.shape(x)[1:]}")

    return ObservationModel(
        out=(*distributions.likelihood_heads(likelihood), *event),
        scaled=scaled,
        given=lambda out: distributions.likelihood(likelihood, out, rank, top, std),
        show=show,
        fits=fits,
        note=distributions.likelihood_note(likelihood, levels),
    )
