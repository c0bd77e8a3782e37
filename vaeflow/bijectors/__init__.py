"""Bijectors: one a file, one line here. The law tests (tests/test_bijector_laws.py) run over every entry.

Direction: `forward` is the generative one, latent z to data x; density evaluation is `inverse_and_log_det`.

To add one: write a file with a maker (keyword-only, annotated arguments -> Layer) and add its line. The line says what the
laws need; the maker's annotations are the schema of its configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vaeflow.bijectors.layer import Layer, chain, inverse, repeat
from vaeflow.build import Count, part_kind


class Entry(NamedTuple):
    """A registered bijector and how the laws try it.

    make      keyword-only arguments -> Layer
    examples  arguments at which the laws try it; parts named "net", "conv" and "layer" exist there
    shapes    event shapes of the data end
    domain    the data: "real", or "unit" for the open interval (0, 1)
    log_det   "exact", or "stochastic" (then the laws use a deterministic mode)
    inverse_atol  float32 tolerance of inverse(forward(z)) = z, relative to 1 + |z|
    context   whether the bijector depends on the context
    identity  whether it starts as the identity (up to its data-dependent part)
    """

    make: Callable[..., Layer]
    examples: tuple[dict[str, Any], ...] = ({},)
    shapes: tuple[tuple[int, ...], ...] = ((2,), (5,))
    domain: str = "real"
    log_det: str = "exact"
    inverse_atol: float = 1e-5
    context: bool = False
    identity: bool = False


def _chain(*, of: tuple[Layer, ...]) -> Layer:
    return chain(*of)


def _repeat(*, of: Layer, n: Count) -> Layer:
    return repeat(of, n)


def _inverse(*, of: Layer) -> Layer:
    return inverse(of)


BIJECTORS: dict[str, Entry] = {
    "chain": Entry(_chain, examples=(dict(of=["layer", "layer"]),), context=True),
    "repeat": Entry(_repeat, examples=(dict(of="layer", n=3),), context=True),
    "inverse": Entry(_inverse, examples=(dict(of="layer"),), context=True),
}

part_kind(Layer, "layer", BIJECTORS)
