"""Premade flows on vectors whose Jacobian has no zeros: residual flows and FFJORD; images are flattened. Events of one dimension are
allowed. Data are brought to unit scale by ActNorm; grey values are dequantised uniformly, divided by `levels` and pass a logit first."""

from __future__ import annotations

from typing import Annotated, Literal

from vaeflow.bijectors import actnorm, chain, cnf, repeat, residual
from vaeflow.bijectors.residual import Open
from vaeflow.build import SAMPLING, Count, Natural, NonNegative
from vaeflow.flows.ends import data_end, size_of
from vaeflow.model import Model
from vaeflow.models.flow import flow
from vaeflow.nets import concat_squash
from vaeflow.record import recorded

_SMALL = 8  # dimensions up to which the exact log-determinant costs less than its estimate's variance


@recorded
def residual_flow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layers: Count = 16,
    hidden: tuple[Count, ...] = (32, 32),
    lip: Open = 0.95,
    log_det: Literal["auto", "exact", "series", "unbiased"] = "auto",
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Residual flow (Chen et al. 2019, arXiv 1906.02735; i-ResNet, Behrmann et al. 2019): ActNorm, then z = x + g(x, c) with Lip(g) < 1,
    `layers` times. Sampling inverts a layer by fixed-point iteration.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        layers: number of residual blocks.
        hidden: widths of their networks.
        lip: bound of a network's Lipschitz constant.
        log_det: of training, see bijectors/residual.py; auto: exact for at most 8 dimensions, else unbiased. Evaluation is exact.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = residual_flow(event=(2,), layers=16)
    """
    how = log_det if log_det != "auto" else "exact" if size_of(event) <= _SMALL else "unbiased"
    block = residual(hidden=hidden, lip=lip, log_det=how, roulette=max(0.85, (1 + lip**2) / 2))
    layer = chain(*data_end(levels), repeat(chain(actnorm(), block), layers))
    return flow(event=event, levels=levels, layer=layer, temperature=temperature)


@recorded
def ffjord(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    hidden: tuple[Count, ...] = (64, 64, 64),
    steps: Count = 12,
    kinetic: NonNegative = 0.01,
    jacobian: NonNegative = 0.01,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """FFJORD (Grathwohl et al. 2019, arXiv 1810.01367): a continuous flow by fixed steps of rk4, trained by maximum likelihood with the
    penalties of Finlay et al. 2020 (2002.02798), which keep the steps exact (see bijectors/cnf.py).

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        hidden: widths of the network.
        steps: of the solver.
        kinetic, jacobian: weights of the penalties on speed and Jacobian.
        temperature: of `sample`: factor of the base's noise.

    Returns: A Model with an exact density; of grey values a log-weight, by uniform dequantisation.

    Example:
        model = ffjord(event=(2,))
    """
    field = cnf(net=concat_squash(hidden=hidden, activation="tanh"), steps=steps, kinetic=kinetic, jacobian=jacobian)
    return flow(event=event, levels=levels, layer=chain(*data_end(levels), field), temperature=temperature)


EXAMPLES = {
    residual_flow: dict(event=(3,), layers=2, hidden=(4,), log_det="series"),
    ffjord: dict(event=(1,), hidden=(8,), steps=2),
}
