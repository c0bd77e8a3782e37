"""Class-conditional sampling of an unconditional continuous-time model, by the gradient of a classifier of noised data.

    grad log p(x_t | c) = grad log p(x_t) + s grad log p(c | x_t, t),    s = 1 exact, s = 0 unconditional

The classifier is another run's, of the same path and trained in the same coordinates x: they are its own. The class is the model's context,
one-hot, which its network does not see.

Reference: Dhariwal and Nichol 2021 (arXiv 2105.05233), section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.diffusion.guidance import classifier_guided
from vaeflow.diffusion.path import Predict, ProbabilityPath
from vaeflow.errors import UserError
from vaeflow.model import Array, Batch, Frozen, Params
from vaeflow.models.parts.continuous_time import Coordinates, of_frozen

_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # where two paths are compared


class ClassGuidance(NamedTuple):
    """params: the whole tree of the guided model.

    space    its coordinates, the classifier's
    classes  number of classes
    init     (key, batch, given) -> the classifier's parameters
    guide    (predict, params, c [classes] or None) -> the prediction given the class; None: predict
    """

    space: Coordinates
    classes: int
    init: Callable[[Array, Batch, Params], Params]
    guide: Callable[[Predict, Params, Array | None], Predict]


def class_guidance(
    classifier: Frozen | None, scale: float, path: ProbabilityPath, event: tuple[int, ...], levels: int, t_min: float, t_max: float
) -> ClassGuidance | None:
    """See the module's docstring. None: there is no classifier.

    Args:
        classifier: a run of a classifier of noised data.
        scale: s.
        path, event, levels, t_min, t_max: of the guided model.

    Raises:
        UserError: there is a scale and no classifier; the classifier is one of clean data, is trained on, or is of another path, of other
            data or of larger times only; at t_max x_t has no data, so that the gradient says nothing of them.
    """
    if classifier is None:
        if scale != 1:
            raise UserError(f"sample.classifier_scale={scale:g} has no use in a model without model.classifier")
        return None
    noised, where = classifier.model.noised, f"model.{classifier.name}"
    if noised is None:
        raise UserError(f"{where} must be a classifier of noised data: one that was trained with a model.path")
    if classifier.train:
        raise UserError(f"{where}.train=True is invalid: no loss of this model reads the classifier")
    if (classifier.model.event, classifier.model.levels) != (event, levels):
        other = f"event={classifier.model.event}, levels={classifier.model.levels}"
        raise UserError(f"{where} is of data with {other}, not event={event}, levels={levels}")
    if path.gamma is not None or path.init is not None:
        raise UserError(f"{where} needs a fixed model.path without gamma, from Gaussian noise")
    with jax.ensure_compile_time_eval():
        for t in _TIMES:
            own, others = _coefficients(path, t), _coefficients(noised.path, t)
            if max(abs(a - b) for a, b in zip(own, others, strict=True)) > 1e-4 * max(*own, *others):
                raise UserError(
                    f"model.path is not the path of {where}: at t={t:g} its (alpha, sigma) are ({own[0]:.4g}, {own[1]:.4g}), "
                    f"the classifier's ({others[0]:.4g}, {others[1]:.4g})"
                )
        start = _coefficients(path, t_max)[0]
    if t_min < noised.t_min:
        raise UserError(f"model.t_min={t_min:g} is below the smallest time of {where}, model.t_min={noised.t_min:g} there")
    if scale and start <= 0:
        raise UserError(f"sample.t_max={t_max:g} is invalid with {where}: x_t has no data there; it must be smaller, as 0.999")

    def guide(predict, params, c):
        if c is None or scale == 0:
            return predict

        def log_prob(x, t):
            return c @ noised.log_prob(classifier.of(params), x, t).astype(c.dtype)

        return classifier_guided(predict, path, log_prob, scale)

    return ClassGuidance(of_frozen(classifier, noised.space), classifier.model.classes, classifier.init, guide)


def _coefficients(path: ProbabilityPath, t: float) -> tuple[float, float]:
    """(alpha, sigma) at t."""
    return float(path.alpha(jnp.asarray(t))), float(path.sigma(jnp.asarray(t)))
