"""Premade flow of image patches by transformers."""

from __future__ import annotations

from typing import Annotated

from vaeflow.bijectors import Memory, actnorm, chain, patch_autoregressive, scale, squeeze
from vaeflow.build import SAMPLING, Count, Decay, Natural, NonNegative
from vaeflow.flows.ends import check_image, pairs
from vaeflow.model import Model
from vaeflow.models.flow import flow
from vaeflow.record import recorded


@recorded
def tarflow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 8,
    patch: Count = 2,
    width: Count = 64,
    depth: Count = 2,
    heads: Count = 4,
    noise: NonNegative = 0.0,
    label_drop: Decay = 0.0,
    memory: Memory = "store",
    denoise: Annotated[bool, SAMPLING] = True,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """TarFlow (Zhai et al. 2024, arXiv 2412.06329): autoregressive transformers over the patches of an image, in alternating orders. Grey
    values are scaled to [-1, 1].

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        layers: number of autoregressive layers.
        patch: height and width of a patch.
        width, depth, heads: of the transformers: size of a token, blocks, heads of attention.
        noise: standard deviation of the Gaussian noise that training adds, in the units of the data (of data that `vaeflow.fit`
            standardises, in their standard deviations); 0: none.
        label_drop: probability with which training hides the context, for guidance.
        memory: what training keeps of the pairs: store, remat or invert (see `repeat` in bijectors/core/layer.py).
        denoise: whether samples of a flow with `noise` are denoised by its score.
        guidance: of samples: (t, s) of a layer are mixed from those of the context and of none; 1: no guidance.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Raises:
        UserError: an event that is not an image, or whose height or width `patch` does not divide; heads that do not divide width.

    Example:
        model = tarflow(event=(8, 8, 1), levels=17)
    """
    check_image("tarflow", event, patch, f"patch={patch}")
    end = scale(shift=levels / 2, factor=levels / 2) if levels else actnorm()
    steps = pairs(lambda flip: patch_autoregressive(width=width, depth=depth, heads=heads, flip=flip), layers, memory=memory)
    return flow(
        event=event,
        levels=levels,
        layer=chain(end, squeeze(factor=patch), steps),
        flatten=False,
        noise=noise,
        label_drop=label_drop,
        denoise=denoise,
        guidance=guidance,
        temperature=temperature,
    )


EXAMPLES = {tarflow: dict(event=(4, 4, 1), levels=17, layers=2, width=4, depth=1, heads=1)}
