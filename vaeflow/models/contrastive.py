"""Noise-contrastive prior (Aneja et al. 2021): the prior of a trained VAE, reweighted where no data were encoded.

    p_r(z) = r(z) p(z) / Z,    r(z) = D(z) / (1 - D(z)),    Z = E_p[r(z)]
    loss = -1/2 E_q[log D(z)] - 1/2 E_p[log(1 - D(z))]

q(z) = E_x[q(z|x)], the aggregate posterior of a VAE that stays as it is, and p(z) its prior, whichever it is. D is a classifier that tells
draws of q from draws of p; its logit is log r. The best D has r = q/p: then Z = 1 and p_r = q, so the holes of the prior (where p is high
and q is low) are gone. The classifier's head starts at zero: r = 1, the VAE as it was. With a context c all of this is given c.

Density: log p(x|z) + log p_r(z) - log q(z|x), z ~ q(z|x). Z is estimated with `partition` draws of p and a key that never changes, so it
is the same number for every example and draw, and a vmap over keys computes it once; `terms` says how wrong it is.

Sampling: z from p_r (see reweight.py), then x from p(x|z). In evaluation (`terms`, nats where they are log-densities):
    loss, accuracy  of the classifier
    prior_gain      E_q[log r(z)] - log Z = KL(q||p) - KL(q||p_r): what the ELBO gains by the new prior
    log_z           from fresh draws of p, `proposals` of them for every example, linearised at the estimate that the density uses
    log_z_error     that estimate minus this one: by so much log-densities are too low
    sir_ess         the effective sample size of `proposals` proposals

Parameters: `classifier`; those of the VAE, a trained run, as fixed["frozen"].
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vaeflow.build import SAMPLING, Count, Positive
from vaeflow.distributions import Distribution, Joint
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Frozen, Latent, Model, overlay
from vaeflow.models.parts.reweight import langevin, log_mean, resample
from vaeflow.models.parts.vae_loss import log_weight
from vaeflow.nets import Net
from vaeflow.record import recorded


@recorded
def contrastive(
    *,
    frozen: Frozen,
    classifier: Net,
    partition: Count = 100_000,
    sampler: Annotated[Literal["prior", "sir", "langevin"], SAMPLING] = "sir",
    proposals: Annotated[Count, SAMPLING] = 500,
    langevin_steps: Annotated[Count, SAMPLING] = 200,
    langevin_step_size: Annotated[Positive, SAMPLING] = 1e-3,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. `sample` shows x as the VAE does.

    Args:
        frozen: the VAE, whose event and levels are this model's.
        classifier: the network from z to log r, the logit of D.
        partition: draws of p that estimate Z. With a context they are drawn for every example in each call of log_prob: use fewer there.
        sampler: prior: of the VAE, as if r = 1; sir: sampling-importance-resampling; langevin: chains that start at a draw by sir.
        proposals: draws of p per sample of which sir takes one; 1: langevin starts at draws of p.
        langevin_steps: steps of the Metropolis-adjusted Langevin algorithm, of p_r at the temperature.
        langevin_step_size: its step size e.
        temperature: T: draws of (r p)^(1/T^2), which is T times the standard deviation where r p is Gaussian; sampler prior
            ignores it.
    """
    if frozen.train:
        raise UserError("model.frozen.train=True is invalid: the classifier's loss would train the encoder to be told from the prior")
    if frozen.model.latent is None or frozen.model.latent.discrete:
        raise UserError("model.frozen must have a latent vector of real numbers, as a vae has: its prior is what is reweighted")
    vae = frozen.model.latent
    classify = classifier.module((1,), 1, True)

    def log_r(params, z, context):
        """z [*lead, *rows, D], context [*rows, C] or None -> [*lead, *rows]."""
        logit: Any = classify.apply({"params": params["classifier"]}, z, context)
        return logit[..., 0]

    def from_p(params, key, lead, context):
        """z [*lead, *rows, D] from p."""
        prior = vae.prior(frozen.of(params), context)
        rows = () if context is None or prior.batch_shape else context.shape[:-1]
        return prior.sample(seed=key, sample_shape=(*lead, *rows))

    def tilt(params, z, context, power=1.0):
        """log (r p)^power / p."""
        value = power * log_r(params, z, context)
        return value if power == 1 else value + (power - 1) * vae.prior(frozen.of(params), context).log_prob(z)

    def sir(params, key, lead, context, m, power=1.0):
        return resample(key, lambda key: from_p(params, key, lead, context), lambda z: tilt(params, z, context, power), m)

    def log_z(params, context):
        """[*rows]."""
        return log_mean(jax.random.key(0), lambda key: log_r(params, from_p(params, key, (), context), context), partition)

    def prior_of(params, context=None) -> Distribution:
        base = vae.prior(frozen.of(params), context)
        sizes = base.sizes if isinstance(base, Joint) else tuple(base.event_shape)
        normaliser = log_z(params, context)  # here, and not in `terms`: a chain that asks for many densities computes it once

        def terms(z):
            levels = base.level_log_prob(z) if isinstance(base, Joint) else base.log_prob(z)[..., None]
            return levels.at[..., -1].add(log_r(params, z, context) - normaliser)  # r is of all levels together

        def draw(key, n):
            z = sir(params, key, (n,), context, proposals).z
            return z, terms(z)

        return Joint(draw, terms, sizes, () if context is None else context.shape[:-1])

    def before(params, context=None) -> Distribution:
        return vae.prior(frozen.of(params), context)

    def posterior_of(params, x, context=None) -> Distribution:
        return vae.posterior(frozen.of(params), x, context)

    def likelihood_of(params, z, context=None) -> Distribution:
        return vae.likelihood(frozen.of(params), z, context)

    def logits(params, key, x, context):
        """log r at one draw of q(z|x) and one of p for each example, [B] each."""
        key_q, key_p = jax.random.split(key)
        z_q, z_p = posterior_of(params, x, context).sample(seed=key_q), from_p(params, key_p, _lead(len(x), context), context)
        return log_r(params, z_q, context), log_r(params, z_p, context)

    def init(key, batch, given=NO_PARAMS):
        key_f, key_z, key_c = jax.random.split(key, 3)
        context, held = batch.get("context"), frozen.init(key_f, batch, given)
        z = vae.posterior(frozen.of(held), batch["x"], context).sample(seed=key_z)
        return overlay({"classifier": classify.init(key_c, z, context)["params"], **held}, given)

    def loss(params, key, batch, step):
        del step
        l_q, l_p = logits(params, key, batch["x"], batch.get("context"))
        total = jnp.mean(_cross_entropy(l_q, l_p))
        metrics = {"accuracy": jnp.mean(_accuracy(l_q, l_p)), "logit_posterior": jnp.mean(l_q), "logit_prior": jnp.mean(l_p)}
        return total, {"loss": total} | metrics

    def terms(params, key, batch):
        x, context = batch["x"], batch.get("context")
        key_c, key_s = jax.random.split(key)
        l_q, l_p = logits(params, key_c, x, context)
        fresh, used = sir(params, key_s, _lead(len(x), context), context, proposals), log_z(params, context)
        error = 1 - jnp.exp(fresh.log_mean - used)
        out = {"loss": _cross_entropy(l_q, l_p), "accuracy": _accuracy(l_q, l_p), "prior_gain": l_q - used}
        return out | {"log_z": used - error, "log_z_error": error, "sir_ess": fresh.ess}

    def sample(params, key, n, context=None):
        key_z, key_l, key_x = jax.random.split(key, 3)
        plain = sampler == "prior"
        power = 1.0 if plain else temperature**-2
        z = sir(params, key_z, _lead(n, context), context, 1 if plain else proposals, power).z
        if sampler == "langevin":

            def log_density(z, c):
                z, c = z[None], None if c is None else c[None]
                return (power * (vae.prior(frozen.of(params), c).log_prob(z) + log_r(params, z, c)))[0]

            z = langevin(key_l, z, context, log_density, langevin_steps, langevin_step_size)[0]
        return {"x": vae.show(key_x, likelihood_of(params, z, context)), "z": z}

    # Neither q(z|x) nor Z depends on log_weight's key: under a vmap over keys the encoder and the partition function run once.
    latent = Latent(prior_of, posterior_of, likelihood_of, exact=False, show=vae.show, before=before)
    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_weight(latent),
        density="weight",
        latent=latent,
        terms=terms,
        note=frozen.model.note,
        event=frozen.model.event,
        levels=frozen.model.levels,
    )


def _lead(n: int, context: Array | None) -> tuple[int, ...]:
    """The leading axes of n draws: a context [n, C] has them already."""
    return (n,) if context is None else ()


def _cross_entropy(l_q: Array, l_p: Array) -> Array:
    """-1/2 log D(z_q) - 1/2 log(1 - D(z_p)) from logits."""
    return 0.5 * (jax.nn.softplus(-l_q) + jax.nn.softplus(l_p))


def _accuracy(l_q: Array, l_p: Array) -> Array:
    return 0.5 * ((l_q > 0).astype(l_q.dtype) + (l_p <= 0))


_EXAMPLE = dict(
    frozen="frozen_vae",
    classifier="net",
    partition=40,
    proposals=8,
    langevin_steps=3,
    langevin_step_size=0.1,
)
EXAMPLES = (_EXAMPLE, _EXAMPLE | dict(frozen="frozen_flow_prior", sampler="langevin", temperature=0.8))
