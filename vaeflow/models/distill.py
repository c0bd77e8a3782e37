"""Probability density distillation (Parallel WaveNet, van den Oord et al. 2017): a student flow learns a fixed teacher flow's density.

    loss = KL(q || p) = E_q[log q(y|c) - log p(y|c)],    y = f(z), z ~ base,    log q(y|c) = log base(z) - log_det

q the student, p the teacher, both over continuous y. The student only samples: the noise z of a sample is at hand, so log q needs no
inversion, and a student that is the `inverse` of an autoregressive layer (IAF) costs one pass. The teacher only scores: one pass of a MAF.
A batch gives the number of samples and, where there is one, their contexts; its x is read at initialisation and evaluation only.

Metrics: entropy = E_q[-log q], cross_entropy = E_q[-log p]; loss = cross_entropy - entropy, in nats. `log_prob` is the student's, exact by
inversion; of grey values it is the log-weight of the uniformly dequantised data, as the teacher's was.

Parameters: `layer`, `base` of the student; under "fixed" the same of the teacher, which `config.fixed_from` takes from the workdir of a
flow run (`teacher` and `teacher_base` describe what that run has as `layer` and `base`).
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import Count, Natural, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Model, overlay
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.density import model_of, pushforward
from vaeflow.models.parts.dequantize import make_dequantizer

# Fresh samples of the student per example of a split, in evaluation.
_DRAWS = 8


def distill(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    layer: Layer,
    base: Base,
    teacher: Layer,
    teacher_base: Base,
    dequantize: Literal["none", "uniform"],
    flatten: bool,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring; event, levels, dequantize, flatten, temperature as in flow.py, of both flows."""
    if layer.update is not None:
        raise UserError("model.layer of a distilled flow keeps statistics (batch_norm), which samples of its own would not set")
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape)
    student, teacher_density = pushforward(layer, base, shape), pushforward(teacher, teacher_base, shape)
    model = model_of(student, grey, event, levels, temperature)

    def both(params, key, n, context, train=False):
        """(log q, log p) [n] of n samples of the student."""
        y, log_q, _ = student.sample(params, key, n, context, train=train)
        return log_q, teacher_density.log_prob(params.get("fixed", {}), y, context)

    def init(key, batch, given=NO_PARAMS):
        params = model.init(key, batch, given)
        y, _ = grey.draw({}, jax.random.fold_in(key, 1), batch["x"])
        fixed = teacher_density.init(jax.random.fold_in(key, 2), y, batch.get("context"))
        return overlay(params | {"fixed": fixed}, given) if fixed else params

    def loss(params, key, batch, step):
        del step
        log_q, log_p = both(params, key, len(batch["x"]), batch.get("context"), train=True)
        total = jnp.mean(log_q - log_p)
        return total, {"loss": total, "entropy": -jnp.mean(log_q), "cross_entropy": -jnp.mean(log_p)}

    def terms(params, key, batch):
        n, context = len(batch["x"]), batch.get("context")
        context = None if context is None else jnp.tile(context, (_DRAWS, 1))
        log_q, log_p = (a.reshape(_DRAWS, n).mean(0) for a in both(params, key, _DRAWS * n, context))
        return {"loss": log_q - log_p, "kl_to_teacher": log_q - log_p, "entropy": -log_q, "cross_entropy": -log_p}

    return model._replace(init=init, loss=loss, terms=terms)


_EXAMPLE = dict(event=(4,), levels=0, layer="layer", base="normal", teacher="layer", teacher_base="normal", flatten=False, temperature=1.0)
EXAMPLES = (
    _EXAMPLE | dict(dequantize="none"),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, dequantize="uniform", flatten=True, teacher="norm", teacher_base="logistic"),
)
