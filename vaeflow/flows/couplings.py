"""Premade coupling flows on vectors; images are flattened (images.py has those that are not).

    x = f_1(f_2(... f_n(z))),  z from the base,  every f a coupling: x_kept = z_kept, x_moved = transformer(z_moved; net(z_kept, context))

Sampling and density cost the same. All start from data that ActNorm has brought to unit scale by the first batch; grey values are
dequantised uniformly, divided by `levels` and pass a logit first.
"""

from __future__ import annotations

from typing import Annotated, Literal

from vaeflow.bijectors import (
    Layer,
    actnorm,
    additive_coupling,
    affine_coupling,
    chain,
    lu_linear,
    nice_scaling,
    repeat,
    spline_autoregressive,
    spline_coupling,
)
from vaeflow.build import SAMPLING, Count, Natural, NonNegative, Positive, Range
from vaeflow.flows.ends import check_splits, data_end, pairs, size_of
from vaeflow.model import Model
from vaeflow.models.flow import flow
from vaeflow.models.parts.bases import BASES
from vaeflow.nets import made, mlp
from vaeflow.record import recorded


@recorded
def nice(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    hidden: tuple[Count, ...] = (128, 128),
    base: Literal["normal", "logistic"] = "normal",
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """NICE (Dinh et al. 2014, arXiv 1410.8516): additive couplings, then a scaling of every dimension.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of couplings.
        hidden: widths of their networks.
        base: at the latent end; the paper's images have the logistic one.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event of one dimension.

    Example:
        model = nice(event=(2,), layers=4)
    """
    check_splits("nice", event)
    net = mlp(hidden=hidden)
    steps = pairs(lambda flip: additive_coupling(net=net, mask="alternating", flip=flip), layers)
    layer = chain(*data_end(levels), steps, nice_scaling())
    return flow(event=event, levels=levels, layer=layer, base=BASES[base](), temperature=temperature)


@recorded
def realnvp(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    hidden: tuple[Count, ...] = (128, 128),
    cap: Positive = 2.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """RealNVP (Dinh et al. 2016, arXiv 1605.08803) on vectors: affine couplings, ActNorm before each pair. `realnvp_multiscale` is that of
    images.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of couplings.
        hidden: widths of their networks.
        cap: bound of the log-scales of a coupling.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event of one dimension.

    Example:
        model = realnvp(event=(2,), layers=8)
    """
    check_splits("realnvp", event)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), affine_layers(layers, hidden, cap)), temperature=temperature)


@recorded
def nsf(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 4,
    bins: Annotated[int, Range(2)] = 16,
    bound: Positive = 4.0,
    hidden: tuple[Count, ...] = (128, 128),
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Neural spline flow with couplings, RQ-NSF (C) (Durkan et al. 2019, arXiv 1906.04032): rational-quadratic spline couplings, a linear
    layer (LU) before each. `nsf_ar` is the autoregressive one.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of couplings. Of an event of one dimension, which has nothing to keep: of splines given the context.
        bins: number of pieces of a spline.
        bound: splines are the identity outside [-bound, bound], in units of the data's standard deviation.
        hidden: widths of the networks.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = nsf(event=(2,), layers=8)
    """
    steps = spline_layers(size_of(event), layers, bins, bound, hidden)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps), temperature=temperature)


def affine_layers(layers: int, hidden: tuple[int, ...], cap: float) -> Layer:
    """The layers of `realnvp`."""
    net = mlp(hidden=hidden)
    return pairs(lambda flip: affine_coupling(net=net, mask="alternating", flip=flip, cap=cap), layers, actnorm())


def spline_layers(size: int, layers: int, bins: int, bound: float, hidden: tuple[int, ...]) -> Layer:
    """The layers of `nsf` on vectors [size]."""
    if size == 1:
        spline = spline_autoregressive(made=made(hidden=hidden), bins=bins, bound=bound)
    else:
        spline = spline_coupling(net=mlp(hidden=hidden), mask="half", bins=bins, bound=bound)
    return repeat(chain(lu_linear(), spline), layers)


_EXAMPLE = dict(event=(3,), layers=3, hidden=(8,))
EXAMPLES = {nice: _EXAMPLE | dict(event=(2, 2, 1), levels=17), realnvp: _EXAMPLE, nsf: _EXAMPLE | dict(layers=2, bins=4)}
