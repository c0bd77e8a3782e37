"""Probability density distillation (Parallel WaveNet, van den Oord et al. 2017): a student flow learns a fixed teacher flow's density.

    loss = KL(q || p) = E_q[log q(y|c) - log p(y|c)],    y = f(z), z ~ base,    log q(y|c) = log base(z) - log_det

q the student, p the teacher, both over continuous y. The student only samples: the noise z of a sample is at hand, so log q needs no
inversion, and a student that is the `inverse` of an autoregressive layer (IAF) costs one pass. The teacher only scores: one pass of a MAF.
A batch gives the number of samples and, where there is one, their contexts; its x is read at initialisation and evaluation only.

Metrics: entropy = E_q[-log q], cross_entropy = E_q[-log p]; loss = cross_entropy - entropy, in nats. `log_prob` is the student's, exact by
inversion; of grey values it is the log-weight of the uniformly dequantised data, as the teacher's was.

Parameters: `layer`, `base` of the student; those of the teacher, the run of a flow, as fixed["teacher"].
"""

from __future__ import annotations

import math
from typing import Annotated

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Frozen, Model, merge_params
from vaeflow.models.parts.bases import Base, normal
from vaeflow.models.parts.density import model_of, pushforward
from vaeflow.models.parts.dequantize import make_dequantizer
from vaeflow.record import recorded

# Fresh samples of the student per example of a split, in evaluation.
_DRAWS = 8


@recorded
def distill(
    *,
    teacher: Frozen,
    layer: Layer,
    base: Annotated[Base | None, Bare("normal")] = None,
    flatten: bool = True,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. The shape of the data and their dequantisation are the teacher's.

    Args:
        teacher: the trained flow.
        layer: f, of the student.
        base: of the student, see bases.py; None: N(0, I).
        flatten: whether the student's layer sees vectors [B, D] instead of [B, *event]; the same for an event that is a vector.
        temperature: of `sample`, see bases.py.
    """
    if teacher.train:
        raise UserError("model.teacher.train=True is invalid: a teacher that is trained on would follow its student")
    if layer.update is not None:
        raise UserError("model.layer of a distilled flow keeps statistics (batch_norm), which samples of its own would not set")
    continuous, event, levels = teacher.model.continuous, teacher.model.event, teacher.model.levels
    if continuous is None or event is None or levels is None:
        raise UserError("model.teacher must be a flow: its density of real-valued data is what the student learns")
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer("auto", levels, event, shape)
    student = pushforward(layer, base or normal(), shape)
    model = model_of(student, grey, event, levels, temperature, shape)

    def both(params, key, n, context, train=False):
        """(log q, log p) [n] of n samples of the student."""
        y, log_q, _ = student.sample(params, key, n, context, train=train)
        return log_q, continuous(teacher.of(params), y.reshape(n, *event), context)

    def init(key, batch, given=NO_PARAMS):
        return merge_params(model.init(key, batch, given), teacher.init(jax.random.fold_in(key, 2), batch, given))

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


_EXAMPLE = dict(layer="layer", teacher="frozen_flow")
EXAMPLES = (_EXAMPLE, _EXAMPLE | dict(teacher="frozen_grey_flow"))
