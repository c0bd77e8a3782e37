"""Generative adversarial networks: a generator g and a critic, which play any of the games of vaeflow/objectives/adversarial.py.

    z ~ N(0, I) or U(-1, 1)^latent,    y = g(z, c),    data = push(y),    c the context (optional)

The loss is the sum of both players' losses, in which each player sees the other one's parameters as constants. Without turns both are
updated in every step; `optim.turns` makes them alternate (vaeflow/training/parameter_groups.py), and the group `critic` clips its
parameters where the objective needs that:

    c.optim.update(b1=0.5, turns=("critic:5", "generator:1"), groups=dict(critic=dict(clip_weights=(-0.01, 0.01))))

Those values are `Model.optim` of the model, which `vaeflow.fit` uses where its caller names none. A config must have them.

There is no density and no loss that falls: the parameters of the last step are evaluated, unless a sample measure selects others
(eval.select = "sample_quality.energy").

Reference: Goodfellow et al. 2014 (arXiv 1406.2661); each objective names its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Model, Params, overlay
from vaeflow.models.parts.continuous_time import coordinates
from vaeflow.models.parts.density import fits
from vaeflow.nets import Net
from vaeflow.objectives import Adversarial, Critic
from vaeflow.objectives.adversarial import enough, non_saturating
from vaeflow.record import recorded


@recorded
def gan(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    generator: Net,
    critic: Net | None = None,
    decoder: Net | None = None,
    objective: Annotated[Adversarial | None, Bare("non_saturating")] = None,
    latent: Count = 2,
    prior: Literal["normal", "uniform"] = "normal",
    layer: Layer | None = None,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. Parameters: generator, critic (net, and decoder where there is one), stats (the objective's scalars),
    fixed/layer.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data. Grey values get uniform noise.
        generator: z [B, latent] -> y [B, *event].
        critic: y [B, *event] -> [B, m], m = 1 for a score, else `features` of the objective. Not of gmmn.
        decoder: codes [B, m] -> [B, *event], of objectives with a reconstruction (ebgan, began, magan, mmd) and of no other.
        objective: the game; see vaeflow/objectives/adversarial.py.
        latent, prior: dimensions of z; N(0, I), or the uniform distribution on [-1, 1]^latent.
        layer: f, data = f(y). Its initial values, which may be those of the first batch (actnorm), are not trained.
        temperature: of `sample`: factor of z.

    Returns: A Model without a density; `sample` gives {x, z}.

    Raises:
        UserError: a network is missing, or not used by the objective; a critic with batch normalisation under a gradient penalty; a batch
            of one example for an objective of pairs.

    Example:
        model = gan(event=(2,), generator=mlp(hidden=(128, 128)), critic=mlp(hidden=(128, 128)), objective=wgan_gp())
    """
    event, game = tuple(event), objective or non_saturating()
    at, wanted = coordinates(event, levels, layer, False, "auto"), game.critic is not None
    for name, net, needed in (("critic", critic, wanted), ("decoder", decoder, game.decodes)):
        if (net is not None) != needed:
            what = f"needs a network model.{name}" if needed else f"has no {name}, and model.{name} must be empty"
            raise UserError(f"the objective {game.kind!r} {what}")
    generate = generator.module(at.shape, 1, False)
    judge = critic and critic.module((game.outputs,), len(event), False)
    decode = decoder and decoder.module(at.shape, 1, False)

    def generated(params, z, c) -> Any:
        return generate.apply({"params": params["generator"]}, z, c)

    def critic_of(params: Params, c: Array | None) -> Critic:
        own = params.get("critic", NO_PARAMS)

        def of(net: Any, name: str) -> Any:
            return lambda x: net.apply({"params": own[name]}, x, c)

        return Critic(of(judge, "net"), of(decode, "decoder"))

    def draw(key, n, dtype=jnp.float32):
        if prior == "uniform":
            return jax.random.uniform(key, (n, latent), dtype, -1, 1)
        return jax.random.normal(key, (n, latent), dtype)

    def players(params, key, batch):
        """(x, y [B, *event], c, a key) of a batch."""
        enough(game, len(batch["x"]))
        key_u, key_z, key_penalty = jax.random.split(key, 3)
        x, c = at.pull(params, at.dequantize(key_u, batch["x"])[0])[0], batch.get("context")
        return x, generated(params, draw(key_z, len(x), x.dtype), c), c, key_penalty

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_u, key_layer, key_generator, key_critic, key_decoder = jax.random.split(key, 5)
        y, _ = at.dequantize(key_u, batch["x"])
        params = overlay(at.init(key_layer, y), given)
        x, c = at.pull(params, y)[0], batch.get("context")
        params["generator"] = generate.init(key_generator, jnp.zeros((len(x), latent), x.dtype), c)["params"]
        if judge is not None:
            variables = judge.init(key_critic, x, c)
            if game.penalised and len(variables) > 1:
                others = ", ".join(sorted({*variables} - {"params"}))
                raise UserError(
                    f"model.critic has batch normalisation ({others}), and the gradient penalty of {game.kind!r} is of single examples"
                )
            params["critic"] = {"net": variables["params"]}
        if decode is not None:
            params["critic"]["decoder"] = decode.init(key_decoder, jnp.zeros((len(x), game.outputs), x.dtype), c)["params"]
        if game.stats:
            params["stats"] = {name: jnp.asarray(value, jnp.float32) for name, value in game.stats.items()}
        return overlay(params, given)

    def loss(params, key, batch, step):
        del step
        x, y, c, key_penalty = players(params, key, batch)
        stats = params.get("stats", NO_PARAMS)
        of_generator = game.generator(critic_of(jax.lax.stop_gradient(params), c), x, y, stats)
        if game.critic is None:
            return of_generator, {"loss": of_generator}
        of_critic = game.critic(critic_of(params, c), key_penalty, x, jax.lax.stop_gradient(y), stats)
        total = of_critic + of_generator
        return total, {"loss": total, "critic_loss": of_critic, "generator_loss": of_generator, **stats}

    def update(params, key, batch, step):
        del step
        assert game.update is not None
        x, y, c, _ = players(params, key, batch)
        return params | {"stats": game.update(critic_of(params, c), x, y, params["stats"])}

    def sample(params, key, n, context=None):
        z = temperature * draw(key, n)
        return {"x": at.push(params, generated(params, z, context)), "z": z}

    turns = (("turns", game.turns),) if game.turns else ()
    clipped = (("groups.critic.clip_weights", game.clip),) if game.clip else ()
    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=None,
        density="none",
        update=update if game.update is not None else None,
        event=event,
        levels=levels,
        optim=(("b1", 0.5), ("schedule", "constant"), *turns, *clipped),
    )


_EXAMPLE = dict(event=(4,), generator="net", critic="net")
EXAMPLES = (
    _EXAMPLE | dict(objective="fisher"),
    _EXAMPLE | dict(objective="mmd", decoder="net", layer="layer", prior="uniform"),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, objective="cramer"),
)
