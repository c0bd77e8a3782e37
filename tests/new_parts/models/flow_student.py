"""A one-pass student of a frozen flow, with a moving average of itself as a second teacher (Tarvainen and Valpola 2017, arXiv:1703.01780).

    x = f(z) of the teacher;    loss = E|g(z) - x|^2 + weight E|g(z + jitter e) - g'(z)|^2,    e ~ N(0, I)

f is a trained flow with a base N(0, I), named by its workdir: --config.model.teacher=WORKDIR. g' is the moving average of g, which
`update` sets after every step of the optimiser; samples are g'(z). `best` is selected by E|g'(z) - x|^2, the term `loss`.

Parameters: `student`; stats["target"] of g'; those of the teacher as fixed["teacher"].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.build import Decay, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Frozen, Model, merge_params
from vaeflow.nets import Net


def flow_student(*, teacher: Frozen, student: Net, decay: Decay, weight: NonNegative, jitter: NonNegative) -> Model:
    """See the module's docstring. decay: of the moving average."""
    event, encode, draw = teacher.model.event, teacher.model.encode, teacher.model.sample
    if event is None or encode is None or draw is None or teacher.model.levels:
        raise UserError("model.teacher must be a flow of real-valued data: its latents are what the student starts from")
    network = student.module(event, len(event), False)

    def g(own, z) -> Any:
        return network.apply({"params": own}, z)

    def pairs(params, key, n):
        """(z, x) of the teacher, [n, *event] each."""
        first, second = jax.random.split(key)
        x = draw(teacher.of(params), first, n)["x"]
        return encode(teacher.of(params), second, {"x": x}).reshape(n, *event), x

    def init(key, batch, given=NO_PARAMS):
        own = network.init(key, batch["x"])["params"]
        return merge_params({"student": own, "stats": {"target": own}}, teacher.init(key, batch, given))

    def loss(params, key, batch, step):
        del step
        first, second = jax.random.split(key)
        z, x = pairs(params, first, len(batch["x"]))
        near = z + jitter * jax.random.normal(second, z.shape)
        regression = jnp.mean(_square(g(params["student"], z) - x))
        consistency = jnp.mean(_square(g(params["student"], near) - g(params["stats"]["target"], z)))
        total = regression + weight * consistency
        return total, {"loss": total, "regression": regression, "consistency": consistency}

    def update(params, key, batch, step):
        del key, batch, step
        target = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, params["stats"]["target"], params["student"])
        return params | {"stats": {"target": target}}

    def terms(params, key, batch):
        z, x = pairs(params, key, len(batch["x"]))
        error = _square(g(params["stats"]["target"], z) - x)
        return {"loss": error, "squared_error": error}

    def sample(params, key, n, context=None):
        del context
        z = jax.random.normal(key, (n, *event))
        return {"x": g(params["stats"]["target"], z), "z": z}

    return Model(init, loss, sample, None, "none", update=update, terms=terms, event=event, levels=0)


def _square(h):
    return jnp.sum(h.reshape(len(h), -1) ** 2, -1)


EXAMPLES = (dict(teacher="frozen_flow", student="net", decay=0.99, weight=0.1, jitter=0.1),)
