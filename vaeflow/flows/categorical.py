"""Premade models of discrete diffusion, on integers: D3PM and masked diffusion (vaeflow/models/categorical.py).

    x_T categories drawn from the prior, or masks -> x_0, by steps that predict x_0 and keep a part of it

Images [H, W, C] of grey values have a U-Net that reads them as numbers, sequences [L] of categories a transformer that reads them one-hot.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vaeflow.build import SAMPLING, Count, Fraction, Natural, NonNegative, Positive
from vaeflow.diffusion import CORRUPTIONS
from vaeflow.flows.ends import Event
from vaeflow.model import Model
from vaeflow.models.categorical import categorical
from vaeflow.nets import Net, dit, unet
from vaeflow.record import recorded


def _of_event(event: Event, net: Net | None) -> dict[str, Any]:
    """{"net", "reads"} of images or sequences."""
    if len(event) == 3:
        return dict(net=net or unet(channels=32, blocks=1), reads="values")
    return dict(net=net or dit(patch=1, width=128, depth=4), reads="one_hot")


@recorded
def d3pm(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    transitions: Literal["auto", "uniform", "absorbing", "gaussian", "neighbours"] = "auto",
    timesteps: Count = 1000,
    cross_entropy: NonNegative | None = None,
    steps: Annotated[Count, SAMPLING] = 100,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
) -> Model:
    """D3PM (Austin et al. 2021, arXiv 2107.03006): the bound of a Markov chain on categories, reversed, and a cross-entropy beside it.

    Args:
        event: a sequence (L,) or an image (H, W, C) of integers.
        levels: number of categories, at least 2.
        net: see categorical.py of the families; None: a U-Net for images, a transformer for sequences.
        transitions: auto: gaussian with the truncated logistic output for images, absorbing for sequences. The others have softmax logits
            and the paper's schedules.
        timesteps: T, number of steps of the chain.
        cross_entropy: weight of the cross-entropy; None: 0.001 for images, 0.01 for sequences, as in the paper.
        steps: evaluations of the network for a sample, at most T.
        temperature: of `sample`: the logits are divided by it.

    Returns: A Model whose density is a bound.

    Example:
        model = d3pm(event=(8, 8, 1), levels=17)
    """
    image, auto = len(event) == 3, transitions == "auto"
    kind = ("gaussian" if image else "absorbing") if transitions == "auto" else transitions
    return categorical(
        event=event,
        levels=levels,
        corruption=CORRUPTIONS[kind](),
        timesteps=timesteps,
        cross_entropy=(0.001 if image else 0.01) if cross_entropy is None else cross_entropy,
        output="logistic" if image and auto else "softmax",
        steps=steps,
        temperature=temperature,
        **_of_event(event, net),
    )


@recorded
def masked_diffusion(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net | None = None,
    steps: Annotated[Count, SAMPLING] = 100,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
    remask: Annotated[Fraction, SAMPLING] = 0.0,
) -> Model:
    """Masked diffusion in continuous time (Sahoo et al. 2024, arXiv 2406.07524; Shi et al. 2024, 2406.04329): a masked language model whose
    share of masks is uniform, weighted to be a bound.

    Args:
        event: a sequence (L,) or an image (H, W, C) of integers.
        levels: number of categories, at least 2; the mask is one more.
        net: see categorical.py of the families; None: a U-Net for images, a transformer for sequences.
        steps: evaluations of the network for a sample.
        temperature: of `sample`: the logits are divided by it.
        remask: share of the largest probability with which a step masks known entries again (Wang et al. 2025, arXiv 2503.00307).

    Returns: A Model whose density is a bound.

    Example:
        model = masked_diffusion(event=(64,), levels=27)
    """
    return categorical(
        event=event,
        levels=levels,
        corruption=CORRUPTIONS["absorbing"](),
        timesteps=0,
        steps=steps,
        temperature=temperature,
        remask=remask,
        **_of_event(event, net),
    )


EXAMPLES = {
    d3pm: dict(event=(4,), levels=5, net="net", timesteps=6, steps=3),
    masked_diffusion: dict(event=(4,), levels=5, net="net", steps=3),
}
