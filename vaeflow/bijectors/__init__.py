"""Bijectors: one a file, one line here. The law tests (tests/test_bijector_laws.py) run over every entry.

Direction: `forward` is the generative one, latent z to data x; density evaluation is `inverse_and_log_det`.

To add one: write a file with a maker (keyword-only, annotated arguments -> Layer) and add its line. The line says what the
laws need; the maker's annotations are the schema of its configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vaeflow.bijectors.actnorm import actnorm
from vaeflow.bijectors.additive import additive_coupling, nice_scaling
from vaeflow.bijectors.affine import affine_coupling
from vaeflow.bijectors.autoregressive import affine_autoregressive, mixture_autoregressive, spline_autoregressive
from vaeflow.bijectors.batch_norm import batch_norm
from vaeflow.bijectors.cnf import cnf
from vaeflow.bijectors.core.layer import Layer, Memory, chain, chain_of, inverse, inverse_of, repeat, repeat_of
from vaeflow.bijectors.elementwise import logit, scale
from vaeflow.bijectors.gaussianize import gaussianize
from vaeflow.bijectors.householder import householder
from vaeflow.bijectors.lu_linear import lu_linear
from vaeflow.bijectors.mintnet import mintnet
from vaeflow.bijectors.mixture import mixture_coupling
from vaeflow.bijectors.patches import patch_autoregressive
from vaeflow.bijectors.permutation import permutation
from vaeflow.bijectors.planar import planar
from vaeflow.bijectors.radial import radial
from vaeflow.bijectors.residual import residual
from vaeflow.bijectors.spline import spline_coupling
from vaeflow.bijectors.split import split
from vaeflow.bijectors.squeeze import flatten, squeeze
from vaeflow.bijectors.sylvester import sylvester
from vaeflow.bijectors.triangular import triangular
from vaeflow.build import part_kind

VECTORS = ((2,), (5,))
FROM_ONE = ((1,), *VECTORS)
CHECKERBOARDS = ((1, 2, 1), (4, 4, 1))
CHANNELS = ((1, 1, 2), (4, 4, 2))


class Example(NamedTuple):
    """Arguments of a maker and the data's event shapes at which the laws try them; as parts there are the nets `mlp` and `convnet`
    and the layers `coupling`, `norm` (with statistics), `step` (a chain with it) and `reversible` (one without)."""

    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...] = VECTORS


class BijectorEntry(NamedTuple):
    """A registered bijector and how the laws try it.

    make      keyword-only arguments -> Layer
    examples  what the laws try
    domain    the data: "real", or "unit" for the open interval (0, 1)
    inverse_atol  float32 tolerance of inverse(forward(z)) = z, relative to 1 + |z|
    context   whether the bijector depends on the context
    identity  whether it starts as the identity
    """

    make: Callable[..., Layer]
    examples: tuple[Example, ...]
    domain: str = "real"
    inverse_atol: float = 1e-5
    context: bool = False
    identity: bool = False


def _couplings(*masks: str, **arguments: Any) -> tuple[Example, ...]:
    """A coupling at some masks, half of them flipped; how a mask splits does not depend on the transformer."""
    every = {
        "half": Example(dict(net="mlp", mask="half", **arguments)),
        "alternating": Example(dict(net="mlp", mask="alternating", flip=True, **arguments)),
        "checkerboard": Example(dict(net="convnet", mask="checkerboard", **arguments), CHECKERBOARDS),
        "channel": Example(dict(net="convnet", mask="channel", flip=True, **arguments), CHANNELS),
    }
    return tuple(every[mask] for mask in masks)


_SPLINE = dict(bins=4, bound=3.0)

BIJECTORS: dict[str, BijectorEntry] = {
    "chain": BijectorEntry(chain_of, (Example(dict(of=["coupling", "norm", "coupling"])),), context=True),
    "repeat": BijectorEntry(
        repeat_of,
        (
            Example(dict(of="step", n=3)),
            Example(dict(of="step", n=3, memory="remat")),
            Example(dict(of="reversible", n=3, memory="invert")),
        ),
        context=True,
    ),
    "inverse": BijectorEntry(inverse_of, (Example(dict(of="coupling")),), context=True),
    "additive_coupling": BijectorEntry(additive_coupling, _couplings("half", "channel"), context=True, identity=True),
    "affine_coupling": BijectorEntry(
        affine_coupling, _couplings("half", "alternating", "checkerboard", "channel"), context=True, identity=True
    ),
    "spline_coupling": BijectorEntry(spline_coupling, _couplings("alternating", "checkerboard", **_SPLINE), context=True, identity=True),
    # No identity start: equal components would stay equal (mixture_cdf).
    "mixture_coupling": BijectorEntry(mixture_coupling, _couplings("half", "checkerboard", "channel", components=3, cap=2.0), context=True),
    "gaussianize": BijectorEntry(
        gaussianize,
        (
            Example(dict(components=3, cap=4.0, start="normal"), ((1,), (2,), (5,))),
            Example(dict(components=3, kernel="normal", cap=4.0, start="normal"), ((2,), (4, 4, 2))),
            Example(dict(components=4, cap=4.0), ((1,), (3,))),
        ),
    ),
    "householder": BijectorEntry(
        householder,
        (
            Example(dict(reflections=4, start="identity")),
            Example(dict(reflections=3), (*VECTORS, (4, 4, 2))),
            Example(dict(reflections=2, start="pca")),
        ),
    ),
    "affine_autoregressive": BijectorEntry(
        affine_autoregressive,
        tuple(Example(dict(made=made), ((1,), *VECTORS, (8,))) for made in ("made", "made_linear", "made_random")),
        context=True,
        identity=True,
    ),
    "spline_autoregressive": BijectorEntry(
        spline_autoregressive,
        tuple(Example(dict(made=made, **_SPLINE), FROM_ONE) for made in ("made", "made_random")),
        context=True,
        identity=True,
    ),
    "mixture_autoregressive": BijectorEntry(
        mixture_autoregressive,
        (
            Example(dict(made="made", components=3, cap=2.0), FROM_ONE),
            Example(dict(made="made_random", components=3, kernel="logistic", cap=2.0), FROM_ONE),
        ),
        context=True,
    ),
    "patch_autoregressive": BijectorEntry(
        patch_autoregressive,
        (
            Example(dict(width=4, depth=1, heads=1, tolerance=0.0), ((1, 2, 1), (2, 2, 2))),
            Example(dict(width=4, depth=1, heads=1, flip=True, inversion="sequential"), ((1, 1, 2), (2, 3, 1))),
        ),
        context=True,
        identity=True,
    ),
    "nice_scaling": BijectorEntry(nice_scaling, (Example({}, FROM_ONE),), identity=True),
    "actnorm": BijectorEntry(actnorm, (Example({}, (*FROM_ONE, (4, 4, 2))),)),
    "batch_norm": BijectorEntry(batch_norm, (Example(dict(momentum=0.9), (*FROM_ONE, (4, 4, 2))),)),
    "permutation": BijectorEntry(permutation, (Example({}, FROM_ONE), Example(dict(order="random"), FROM_ONE))),
    "lu_linear": BijectorEntry(lu_linear, (Example(dict(start="identity")), Example({}, (*FROM_ONE, (4, 4, 2))))),
    "residual": BijectorEntry(
        residual,
        (
            Example(dict(hidden=(8,)), FROM_ONE),
            Example(dict(hidden=(8, 8), lip=0.6, log_det="exact"), ((2,),)),
        ),
        context=True,
    ),
    # As many steps as the laws' tolerances need: the round trip is exact to the solver's order only. A net of bounded outputs: another
    # may overflow.
    "cnf": BijectorEntry(
        cnf,
        (
            Example(dict(net="mlp"), FROM_ONE),
            Example(dict(net="convnet", images=True), ((1, 2, 1), (2, 2, 2))),
            Example(dict(net="mlp", solver="dopri5", trace="hutchinson"), ((2,),)),
        ),
        context=True,
        identity=True,
    ),
    "mintnet": BijectorEntry(
        mintnet,
        (
            Example(dict(copies=3, tolerance=0.0), ((1, 1, 1), (1, 2, 1), (3, 2, 2))),
            Example(dict(copies=2, kernel=5, flip=True, tolerance=0.0), ((1, 1, 2), (4, 4, 1))),
        ),
        context=True,
    ),
    "planar": BijectorEntry(planar, (Example({}, FROM_ONE),), context=True),
    "radial": BijectorEntry(radial, (Example({}, FROM_ONE),), context=True),
    "sylvester": BijectorEntry(
        sylvester,
        (
            Example(dict(columns=1, reflections=1), ((1,), (2,))),
            Example(dict(columns=3, reflections=3), ((3,), (5,))),
            Example(dict(columns=2, reflections=0)),
        ),
        context=True,
    ),
    "triangular": BijectorEntry(triangular, (Example({}),), context=True),
    "squeeze": BijectorEntry(squeeze, (Example({}, ((2, 2, 1), (4, 6, 2))),)),
    "flatten": BijectorEntry(flatten, (Example(dict(event=(2, 3, 2)), ((2, 3, 2),)),)),
    "split": BijectorEntry(
        split,
        (
            Example(dict(event=(4, 4, 3), inner="norm", net="convnet"), ((4, 4, 3),)),
            Example(dict(event=(2,), inner="norm", net="mlp"), ((2,),)),
            Example(dict(event=(5,), inner="coupling"), ((5,),)),
        ),
        context=True,
    ),
    "logit": BijectorEntry(logit, (Example(dict(alpha=0.0), FROM_ONE), Example({}, FROM_ONE)), domain="unit"),
    "scale": BijectorEntry(scale, (Example(dict(shift=-1.0, factor=17.0), FROM_ONE),)),
}

part_kind(Layer, "layer", BIJECTORS)

__all__ = [
    "BIJECTORS",
    "BijectorEntry",
    "Example",
    "Layer",
    "Memory",
    "actnorm",
    "additive_coupling",
    "affine_autoregressive",
    "affine_coupling",
    "batch_norm",
    "chain",
    "chain_of",
    "cnf",
    "flatten",
    "gaussianize",
    "householder",
    "inverse",
    "inverse_of",
    "logit",
    "lu_linear",
    "mintnet",
    "mixture_autoregressive",
    "mixture_coupling",
    "nice_scaling",
    "patch_autoregressive",
    "permutation",
    "planar",
    "radial",
    "repeat",
    "repeat_of",
    "residual",
    "scale",
    "spline_autoregressive",
    "spline_coupling",
    "split",
    "squeeze",
    "sylvester",
    "triangular",
]
