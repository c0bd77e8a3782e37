"""Premade flows on images [H, W, C], whose layers see pixels and channels; `flowpp` is also one of vectors.

Grey values are dequantised, divided by `levels` and pass a logit first; the density is that of the grey values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vaeflow import bijectors
from vaeflow.bijectors import (
    Layer,
    Memory,
    actnorm,
    affine_coupling,
    batch_norm,
    chain,
    lu_linear,
    mixture_coupling,
    repeat,
    split,
    squeeze,
)
from vaeflow.bijectors.coupling import Mask
from vaeflow.build import SAMPLING, Count, Natural, NonNegative
from vaeflow.flows.ends import Event, check_image, check_splits, data_end, pairs
from vaeflow.model import Model
from vaeflow.models.flow import flow
from vaeflow.nets import convnet, glow_net, mlp, resnet, transformer
from vaeflow.record import recorded


@recorded
def realnvp_multiscale(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    scales: Natural = 2,
    width: Count = 32,
    blocks: Count = 2,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Multi-scale RealNVP (Dinh et al. 2016, arXiv 1605.08803, sections 3.5 to 4.1). At each scale three couplings with checkerboard masks,
    squeeze, three with channel masks, and half of the channels leave; then four couplings with checkerboard masks. Batch normalisation
    follows every coupling; the networks are residual, without normalisation inside.

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        scales: how many times half of the channels leave.
        width: channels of the first scale's networks; doubled with every scale.
        blocks: residual blocks of a network.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event that is not an image, or whose height or width 2^scales does not divide.

    Example:
        model = realnvp_multiscale(event=(32, 32, 3), levels=256, width=64, blocks=8)
    """
    check_image("realnvp_multiscale", event, 2**scales, f"scales={scales}")

    def alternating(i: int, mask: Mask, flips: tuple[bool, ...]) -> list[Layer]:
        net = resnet(width=width * 2**i, blocks=blocks)
        return [layer for flip in flips for layer in (affine_coupling(net=net, mask=mask, flip=flip), batch_norm())]

    def scale_of(i: int, event: Event) -> Layer:
        if i == scales:
            mask = "checkerboard" if event[0] * event[1] > 1 else "channel"  # one pixel has no neighbour
            return repeat(chain(*alternating(i, mask, (False, True))), 2)
        squeezed = _squeezed(event)
        three = (False, True, False)
        inner = split(event=squeezed, inner=scale_of(i + 1, _halved(squeezed)))
        return chain(*alternating(i, "checkerboard", three), squeeze(), *alternating(i + 1, "channel", three), inner)

    layer = chain(*data_end(levels), scale_of(0, event))
    return flow(event=event, levels=levels, layer=layer, flatten=False, temperature=temperature)


@recorded
def glow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    scales: Count = 2,
    steps: Count = 8,
    width: Count = 64,
    memory: Memory = "store",
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Glow (Kingma and Dhariwal 2018, arXiv 1807.03039). At each scale squeeze, then `steps` times ActNorm, a 1x1 convolution (LU) and an
    affine coupling of the channels; half of the channels leave under a learned prior given the others, but at the last scale.

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        scales: number of scales.
        steps: steps of a scale.
        width: channels of the couplings' networks (3x3, 1x1, 3x3).
        memory: what training keeps of the steps: store, remat or invert (see `repeat` in bijectors/core/layer.py).
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event that is not an image, or whose height or width 2^scales does not divide.

    Example:
        model = glow(event=(32, 32, 3), levels=256, scales=3, steps=32, width=512, memory="invert")
    """
    check_image("glow", event, 2**scales, f"scales={scales}")
    coupling = affine_coupling(net=glow_net(channels=(width, width)), mask="channel")
    body = repeat(chain(actnorm(), lu_linear(), coupling), steps, memory)

    def scale_of(i: int, event: Event) -> Layer:
        squeezed = _squeezed(event)
        if i == scales - 1:
            return chain(squeeze(), body)
        inner = split(event=squeezed, inner=scale_of(i + 1, _halved(squeezed)), net=convnet(channels=()))
        return chain(squeeze(), body, inner)

    layer = chain(*data_end(levels), scale_of(0, event))
    return flow(event=event, levels=levels, layer=layer, flatten=False, temperature=temperature)


def _squeezed(event: Event) -> Event:
    """The event after a squeeze layer."""
    return event[0] // 2, event[1] // 2, 4 * event[2]


def _halved(event: Event) -> Event:
    """What stays of an event after a split."""
    return *event[:2], event[2] // 2


@recorded
def flowpp(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 4,
    components: Count = 8,
    width: Count = 32,
    depth: Count = 2,
    dequantize: Literal["variational", "uniform"] = "variational",
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Flow++ (Ho et al. 2019, arXiv 1902.00275), its networks without attention: couplings by a mixture of logistics and an affine map.
    Images have couplings with checkerboard masks, a squeeze, then as many with channel masks. The dequantiser of grey values is a pair of
    affine couplings that see the example.

    Args:
        event, levels: the shape of one example, a vector or an image [H, W, C]; number of its grey values, 0 for continuous data.
        layers: number of couplings, of an image of each mask.
        components: number of logistics of a coupling.
        width, depth: units (of images: channels) and number of layers of every network.
        dequantize: of grey values.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight.

    Raises:
        UserError: an image whose height or width is odd; an event of one dimension.

    Example:
        model = flowpp(event=(8, 8, 1), levels=17)
    """
    check_splits("flowpp", event)
    if image := len(event) == 3:
        check_image("flowpp", event, 2, "its squeeze")
    widths = (width,) * depth
    net = convnet(channels=widths) if image else mlp(hidden=widths)

    def mixtures(mask: Mask) -> Layer:
        return pairs(lambda flip: mixture_coupling(net=net, mask=mask, flip=flip, components=components), layers, actnorm())

    noise: dict[str, Any] = {}
    if levels and dequantize == "variational":
        mask = "checkerboard" if image else "alternating"
        noise = dict(dequantizer=pairs(lambda flip: affine_coupling(net=net, mask=mask, flip=flip), 2, actnorm()))
    body = (mixtures("checkerboard"), squeeze(), mixtures("channel")) if image else (mixtures("alternating"),)
    return flow(
        event=event,
        levels=levels,
        layer=chain(*data_end(levels), *body),
        flatten=not image,
        dequantize=dequantize if levels else "none",
        temperature=temperature,
        **noise,
    )


@recorded
def mintnet(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    scales: Count = 2,
    layers: Count = 2,
    copies: Count = 8,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """MintNet (Song et al. 2019, arXiv 1907.07945): masked convolutional layers, in pairs of either raster order, a squeeze between the
    scales. Sampling inverts a layer by fixed-point iteration.

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        scales: number of scales.
        layers: pairs of layers of a scale, each after ActNorm.
        copies: hidden channels for each channel of the image.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event that is not an image, or whose height or width 2^(scales - 1) does not divide.

    Example:
        model = mintnet(event=(8, 8, 1), levels=17)
    """
    check_image("mintnet", event, 2 ** (scales - 1), f"scales={scales}")
    pair = chain(actnorm(), *(bijectors.mintnet(copies=copies, flip=flip) for flip in (False, True)))
    body = [layer for _ in range(scales) for layer in (squeeze(), repeat(pair, layers))][1:]
    layer = chain(*data_end(levels), *body)
    return flow(event=event, levels=levels, layer=layer, flatten=False, temperature=temperature)


@recorded
def jet(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    patch: Count = 2,
    width: Count = 32,
    depth: Count = 1,
    heads: Count = 4,
    memory: Memory = "store",
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Jet (Kolesnikov et al. 2024, arXiv 2412.15129): an image of patches, affine couplings of their channels whose networks are
    transformers; before each pair ActNorm and a linear layer (LU) over a patch.

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        layers: number of couplings.
        patch: height and width of a patch.
        width, depth, heads: of the transformers: size of a token, blocks, heads of attention.
        memory: what training keeps of the pairs: store, remat or invert (see `repeat` in bijectors/core/layer.py).
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event that is not an image, or whose height or width `patch` does not divide; heads that do not divide width.

    Example:
        model = jet(event=(32, 32, 3), levels=256, layers=32, patch=4, width=512, depth=5, heads=8, memory="invert")
    """
    check_image("jet", event, patch, f"patch={patch}")
    net = transformer(width=width, depth=depth, heads=heads)
    steps = pairs(lambda flip: affine_coupling(net=net, mask="channel", flip=flip), layers, actnorm(), lu_linear(), memory=memory)
    layer = chain(*data_end(levels), squeeze(factor=patch), steps)
    return flow(event=event, levels=levels, layer=layer, flatten=False, temperature=temperature)


_GREY = dict(event=(4, 4, 1), levels=17)
EXAMPLES = {
    realnvp_multiscale: _GREY | dict(scales=1, width=2, blocks=1),
    glow: _GREY | dict(steps=1, width=4),
    flowpp: _GREY | dict(layers=1, components=2, width=4, depth=1),
    mintnet: _GREY | dict(scales=1, layers=1, copies=2),
    jet: _GREY | dict(layers=2, width=4, heads=2),
}
