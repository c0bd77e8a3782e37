"""Regularisers of the aggregate posterior q(z) = E_x q(z|x), each added to the loss of another objective, `of`:

    tc           weight * TC(q(z)), the total correlation                                   (Chen et al. 2018, whose beta is weight + 1)
    mmd          weight * MMD^2(q(z), p(z))   (Zhao et al. 2017: alpha and lambda are beta = 1 - alpha, weight = alpha + lambda - 1)
    adversarial  weight * E_q[softplus(-critic(z))], the critic telling draws of p(z) from those of q(z) (Makhzani et al. 2016, beta = 0);
                 or any other `game` of adversarial.py

They are estimated from the first draw of each example in the batch, on several devices from each one's share (regularisers.py). `of` may
be such an objective in turn; it gives the number of draws k, and the bound by which `best` is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from vaeflow.build import TRACED, Bare, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.nets import Net
from vaeflow.objectives import regularisers
from vaeflow.objectives.adversarial import Adversarial, Critic, enough, non_saturating
from vaeflow.objectives.elbos import elbo
from vaeflow.objectives.objective import Draws, Objective
from vaeflow.record import recorded


@recorded
def total_correlation(*, weight: Annotated[NonNegative, TRACED], of: Annotated[Objective | None, Bare("elbo")] = None) -> Objective:
    """Needs a diagonal Gaussian posterior and the prior N(0, I). Metrics: the KL's terms mutual_information, tc, dimension_kl."""

    def extra(own, key, draws):
        del own, key
        z, inner = _several(draws.z[0]), draws.q.distribution
        parts = regularisers.decomposition(z, inner.mean(), inner.stddev(), jax.scipy.stats.norm.logpdf(z))
        found = {"mutual_information": parts.mutual_information, "tc": parts.total_correlation, "dimension_kl": parts.dimension_kl}
        return weight * parts.total_correlation, found

    return _add("tc", of, extra)._replace(gaussian=True)


@recorded
def mmd(*, weight: Annotated[NonNegative, TRACED], of: Annotated[Objective | None, Bare("elbo")] = None) -> Objective:
    """Metric: mmd, the squared maximum mean discrepancy between the batch's draws and as many draws of the prior."""

    def extra(own, key, draws):
        del own
        value = regularisers.mmd(_several(draws.z[0]), draws.prior(jax.random.fold_in(key, 2)))
        return weight * value, {"mmd": value}

    return _add("mmd", of, extra)


@recorded
def adversarial(
    *,
    critic: Net,
    weight: Annotated[NonNegative, TRACED],
    of: Annotated[Objective | None, Bare("elbo")] = None,
    game: Annotated[Adversarial | None, Bare("non_saturating")] = None,
) -> Objective:
    """A critic between draws of the prior (its x) and of the aggregate posterior (its y), whose generator is the encoder.

    Args:
        critic: the network z -> score, or features of z. It learns in the same step: its loss adds a gradient for its parameters and no
            value.
        weight: of the encoder's loss in the game.
        of: the objective that it is added to.
        game: any adversarial objective with a critic, without a decoder and without scalars of its own (vaeflow/objectives/adversarial.py).
            Where the game clips the critic, the optimiser must: clip_weights of the group `objective`.

    Returns: An Objective with the metrics fooling, what the encoder minimises, and critic, the critic's own loss.

    Raises:
        UserError: the game has no critic, or it has a decoder or scalars.
    """
    played = game or non_saturating()
    if played.critic is None or played.decodes or played.stats:
        lacks = "has no critic" if played.critic is None else "needs a decoder" if played.decodes else "keeps scalars of its own"
        raise UserError(f"game={played.kind!r} {lacks}, and so does not regularise an aggregate posterior")
    net, against = critic.module((played.outputs,), 1, False), played.critic

    def critic_of(own) -> Critic:
        return Critic(lambda z: jnp.asarray(net.apply({"params": own["critic"]}, z)), lambda codes: codes)

    def extra(own, key, draws):
        z = draws.z[0]
        enough(played, len(z))
        other = draws.prior(jax.random.fold_in(key, 2))
        fooling = played.generator(critic_of(jax.lax.stop_gradient(own)), other, z, {})
        held_x, held_y = (jax.lax.stop_gradient(a) for a in (other, z))
        of_critic = against(critic_of(own), jax.random.fold_in(key, 3), held_x, held_y, {})
        # Two players, one loss: each one's term has no gradient for the other, and Adam scales every parameter by itself.
        total = weight * fooling + of_critic - jax.lax.stop_gradient(of_critic)
        return total, {"fooling": fooling, "critic": jax.lax.stop_gradient(of_critic)}

    return _add("adversarial", of, extra, lambda key, draws: {"critic": net.init(key, draws.z[0])["params"]})


def _add(
    kind: str,
    of: Objective | None,
    extra: Callable[[Params, Array, Draws], tuple[Array, dict[str, Array]]],
    init: Callable[[Array, Draws], Params] | None = None,
) -> Objective:
    """`of` with extra(own, key, draws) -> (value, metrics) added; its own parameters are own["of"]. The draws of one key are shared."""
    inner = elbo() if of is None else of
    if inner.discrete:
        raise UserError(f"of={inner.kind!r} is an objective of discrete latents, for whose draws {kind!r} has no gradient")

    def loss(own, key, draws, step):
        first, metrics = inner.loss(own.get("of", {}), key, draws, step)
        second, found = extra(own, key, draws)
        return first + second, metrics | found | {"loss": first + second}

    def start(key, draws):
        own = {} if init is None else init(key, draws)
        if inner.init is not None:
            own["of"] = inner.init(key if init is None else jax.random.fold_in(key, 1), draws)
        return own

    return inner._replace(loss=loss, init=None if init is None and inner.init is None else start, kind=kind)


def _several(z: Array) -> Array:
    if len(z) < 2:
        raise UserError("data.batch gives a device 1 example, and the objectives 'tc' and 'mmd' compare at least 2 with each other")
    return z
