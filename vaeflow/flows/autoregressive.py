"""Premade autoregressive flows on vectors; images are flattened. Events of one dimension are allowed.

    x_i = transformer(z_i; theta_i),  theta = made(x_0 .. x_(i-1), context)          (vaeflow/bijectors/autoregressive.py)

Density evaluation is one pass of a layer's network and sampling D steps, D the number of dimensions; of `iaf` the reverse. Data are
brought to unit scale by ActNorm; grey values are dequantised uniformly, divided by `levels` and pass a logit first.
"""

from __future__ import annotations

from typing import Annotated

from vaeflow.bijectors import (
    Layer,
    actnorm,
    affine_autoregressive,
    chain,
    gaussianize,
    householder,
    inverse,
    lu_linear,
    mixture_autoregressive,
    permutation,
    repeat,
    spline_autoregressive,
)
from vaeflow.bijectors.mixture import Components
from vaeflow.build import SAMPLING, Count, Natural, NonNegative, Positive, Range
from vaeflow.flows.ends import data_end, size_of
from vaeflow.model import Model
from vaeflow.models.flow import flow
from vaeflow.nets import made
from vaeflow.record import recorded


def _affine(hidden: tuple[int, ...], cap: float) -> tuple[Layer, ...]:
    """An affine autoregressive layer, after which the order of the dimensions is reversed."""
    return affine_autoregressive(made=made(hidden=hidden), cap=cap), permutation()


@recorded
def maf(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    hidden: tuple[Count, ...] = (128, 128),
    cap: Positive = 2.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Masked autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057): affine layers, the order of the dimensions reversed after
    each, ActNorm in place of the paper's batch normalisation.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of autoregressive layers.
        hidden: widths of their networks.
        cap: bound of the log-scales of a layer.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = maf(event=(2,), layers=5)
    """
    steps = masked_layers(layers, hidden, cap)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps), temperature=temperature)


def masked_layers(layers: int, hidden: tuple[int, ...], cap: float) -> Layer:
    """The layers of `maf`."""
    return repeat(chain(actnorm(), *_affine(hidden, cap)), layers)


@recorded
def iaf(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    hidden: tuple[Count, ...] = (128, 128),
    cap: Positive = 2.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Inverse autoregressive flow (Kingma et al. 2016, arXiv 1606.04934): the layers of `maf` inverted. Samples take one pass of each
    network, the density of data D steps.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of autoregressive layers.
        hidden: widths of their networks.
        cap: bound of the log-scales of a layer.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = iaf(event=(2,), layers=5)
    """
    steps = inverse(repeat(chain(*_affine(hidden, cap)), layers))
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps), temperature=temperature)


@recorded
def naf(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 2,
    components: Components = 16,
    hidden: tuple[Count, ...] = (128, 128),
    cap: Positive = 5.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Neural autoregressive flow (Huang et al. 2018, arXiv 1804.00779) with deep sigmoidal units: a mixture of logistic cdfs, then an
    affine map, in each dimension; the order of the dimensions is reversed after each layer. Sampling inverts by bisection.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of autoregressive layers.
        components: number of logistics in each dimension.
        hidden: widths of the networks.
        cap: bound of the log-scales of a layer.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = naf(event=(2,), components=16)
    """
    sigmoidal = mixture_autoregressive(made=made(hidden=hidden), components=components, kernel="logistic", cap=cap)
    steps = repeat(chain(sigmoidal, permutation()), layers)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps), temperature=temperature)


@recorded
def nsf_ar(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 4,
    bins: Annotated[int, Range(2)] = 16,
    bound: Positive = 4.0,
    hidden: tuple[Count, ...] = (128, 128),
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Autoregressive neural spline flow, RQ-NSF (AR) (Durkan et al. 2019, arXiv 1906.04032): rational-quadratic splines, a linear layer
    (LU) before each. `nsf` is the one with couplings, whose samples cost one pass.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of autoregressive layers.
        bins: number of pieces of a spline.
        bound: splines are the identity outside [-bound, bound], in units of the data's standard deviation.
        hidden: widths of the networks.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = nsf_ar(event=(6,), layers=5)
    """
    steps = repeat(chain(lu_linear(), spline_autoregressive(made=made(hidden=hidden), bins=bins, bound=bound)), layers)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps), temperature=temperature)


@recorded
def gaussianization(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    components: Components = 16,
    cap: Positive = 5.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Gaussianization flow (Meng et al. 2020, arXiv 2003.01941): each dimension by a mixture of logistic cdfs, then a rotation
    (Householder), in turn. The mixtures start from the first batch, which should have about 1,000 examples. It has no context.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of rotations; one more layer of mixtures follows the last.
        components: number of logistics in each dimension.
        cap: bound of their log-scales.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = gaussianization(event=(2,), layers=8)
    """
    kernels = gaussianize(components=components, cap=cap)
    steps = repeat(chain(kernels, householder(reflections=size_of(event))), layers)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), steps, kernels), temperature=temperature)


_EXAMPLE = dict(event=(3,), layers=2, hidden=(8,))
EXAMPLES = {
    maf: _EXAMPLE,
    iaf: _EXAMPLE | dict(event=(2, 2, 1), levels=17),
    naf: _EXAMPLE | dict(components=3),
    nsf_ar: _EXAMPLE | dict(bins=4),
    gaussianization: dict(event=(3,), layers=2, components=3),
}
