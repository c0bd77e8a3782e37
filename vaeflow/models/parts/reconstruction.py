"""What sharpens the reconstructions of an autoencoder beside its likelihood (Esser et al. 2021, "Taming transformers for high-resolution
image synthesis", 2012.09841; Rombach et al. 2022, 2112.10752):

    perceptual_weight |phi(x) - phi(y)|^2 / F          phi [F]: the features of a trained classifier
    critic_weight g(y)                                 y is the generator of a game (objectives/adversarial.py) with a critic of its own

x is the data, y a reconstruction, the mean of p(x|z) for z ~ q(z|x); both as the encoder sees them. The critic's scores are those of
patches, on a grid of overlapping receptive fields (Isola et al. 2017, 1611.07004). Both players are updated in each step, each with the
other one's parameters as constants; `optim.groups.critic` gives the critic another rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Batch, Frozen, Params, overlay
from vaeflow.models.parts.observation import ObservationModel
from vaeflow.nets import Net
from vaeflow.objectives import Adversarial, Critic
from vaeflow.objectives.adversarial import hinge


class Reconstruction(NamedTuple):
    """See the module's docstring.

    init  (key, batch, given) -> {"critic": ..., "fixed": {"perceptual": ...}}, what there is of it
    loss  (params, key, x, p) -> (loss [], metrics): x [B, *event] as loaded, p = p(x|z)
    """

    init: Callable[[Array, Batch, Params], Params]
    loss: Callable[[Params, Array, Array, Any], tuple[Array, dict[str, Array]]]


def reconstruction(
    data: ObservationModel,
    event: tuple[int, ...],
    levels: int,
    perceptual: Frozen | None,
    perceptual_weight: float,
    critic: Net | None,
    patches: tuple[int, ...],
    adversarial: Adversarial | None,
    critic_weight: float,
) -> Reconstruction | None:
    """The terms of a family's arguments; None if it has none of them.

    Args:
        data: the data end of the family.
        event, levels: of the data.
        perceptual: the run of a classifier of these data.
        critic: the network of the critic, image to image with `patches`.
        patches: (h, w) of the critic's scores; (): it has one for each image.
        adversarial: the game, of scores; None: hinge.

    Raises:
        UserError: the classifier does not fit the data, or the game is not one of scores of single patches.
    """
    if perceptual is None and critic is None:
        if patches or adversarial is not None:
            raise UserError("model.patches and model.adversarial are a critic's: set model.critic, or leave them out")
        return None
    if perceptual is not None and (perceptual.train or perceptual.model.encode is None):
        raise UserError("model.perceptual must be a run of a classifier, which is not trained on: its features are compared")
    if perceptual is not None and (perceptual.model.event, perceptual.model.levels) != (event, levels):
        own = f"event {perceptual.model.event} and {perceptual.model.levels} levels"
        raise UserError(f"model.perceptual is of {own}, and the data are of event {event} and {levels} levels")
    game = adversarial or hinge()
    if critic is not None and (game.critic is None or game.decodes or game.penalised or game.pairs or game.stats or game.clip):
        known = "hinge, lsgan, minimax, non_saturating"
        raise UserError(f"model.adversarial={game.kind!r} is not a game of scores of single patches; known: {known}")
    judge = critic and critic.module((*patches, 1), len(event), False)
    top = float(levels - 1) if levels else 1.0

    def critic_of(params: Params) -> Critic:
        def scores(x: Array) -> Array:
            assert judge is not None
            return jnp.asarray(judge.apply({"params": params["critic"]}, x)).reshape(-1, 1)  # each patch is an example of the game

        return Critic(scores, scores)

    def init(key, batch, given):
        key_c, key_p = jax.random.split(key)
        params = NO_PARAMS if judge is None else {"critic": judge.init(key_c, data.scaled(batch["x"]))["params"]}
        labelled = {"label": jnp.zeros(len(batch["x"]), jnp.int32), **batch}  # a classifier's init checks that there are labels
        return overlay(params | (perceptual.init(key_p, labelled, given) if perceptual is not None else NO_PARAMS), given)

    def loss(params, key, x, p):
        x, y = data.scaled(x), data.scaled(p.mean())
        total, found = jnp.zeros((), y.dtype), {}
        if perceptual is not None and perceptual.model.encode is not None:
            key_p, key = jax.random.split(key)
            a, b = (perceptual.model.encode(perceptual.of(params), key_p, {"x": image * top}) for image in (x, y))
            found["perceptual"] = jnp.mean(jnp.square(a - b))
            total += perceptual_weight * found["perceptual"]
        if critic is not None and game.critic is not None:
            of_y = game.generator(critic_of(jax.lax.stop_gradient(params)), x, y, NO_PARAMS)
            of_critic = game.critic(critic_of(params), key, x, jax.lax.stop_gradient(y), NO_PARAMS)
            found |= {"critic_loss": of_critic, "adversarial": of_y}
            total += critic_weight * of_y + of_critic
        return total, found

    return Reconstruction(init, loss)
