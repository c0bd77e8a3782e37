"""What the configs of VAEs share beside configs/base.py: the model sections of their families, second stages, and the posteriors and priors
that a VAE may have, each as its parts. The formulas stand in vaeflow/models and vaeflow/bijectors."""

from typing import Any

from ml_collections import ConfigDict

from configs.base import affine, made, mlp, repeat, spline

PRIORS = ("mixture", "vamp", "realnvp", "maf", "spline", "autoregressive", "conditional")
POSTERIORS = ("full_covariance", "iaf", "planar", "radial", "sylvester", "spline")

ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("REINFORCE", dict(estimator="reinforce")),
    "baseline": ("REINFORCE with a network as baseline", dict(estimator="reinforce_baseline", baseline="baseline")),
    "leave_one_out": ("REINFORCE with the other draws as baseline", dict(estimator="leave_one_out")),
    "vimco": ("VIMCO", dict(estimator="vimco")),
    "wake_sleep": ("reweighted wake-sleep, wake phase of q", dict(estimator="wake_sleep", wake_q=True)),
    "gumbel": ("Gumbel-softmax", dict(estimator="gumbel_softmax", relaxation=0.5, relaxation_start=1.0, relaxation_steps=1500)),
    "straight_through": ("straight-through Gumbel-softmax", dict(estimator="straight_through", relaxation=1.0)),
}


def vq(event: tuple[int, ...], levels: int, grid: tuple[int, ...], codes: int, width: int, **changes) -> ConfigDict:
    """The model section of a VQ-VAE: every key of vaeflow/models/vq.py."""
    c = dict(
        kind="vq",
        event=event,
        levels=levels,
        grid=grid,  # shape of the codes: (height, width), or (n,) for networks that give vectors
        codes=codes,  # vectors in the codebook
        width=width,  # their size
        encoder="encoder",  # names of parts
        decoder="decoder",
        prior="prior",  # a causal network over the codes
        likelihood="bernoulli",
        likelihood_std=0.1,  # gaussian
        commitment=0.25,
        decay=0.99,  # of the codebook's moving averages
        smoothing=1e-5,  # of its counts
        restart=0.1,  # codes used less often than this fraction of 1/codes are moved to encodings; 0: never
    )
    return ConfigDict(c | changes)


def discrete_vae(event: tuple[int, ...], levels: int, variables: int, categories: int, **changes) -> ConfigDict:
    """The model section of a discrete-latent VAE: every key of vaeflow/models/discrete.py."""
    c = dict(
        kind="discrete_vae",
        event=event,  # shape of one example
        levels=levels,  # grey values; 2: binary (or binarized); 0: continuous
        variables=variables,
        categories=categories,  # 2: bits, else one-hot vectors
        encoder="encoder",  # names of parts
        decoder="decoder",
        prior="uniform",  # uniform, learned
        likelihood="bernoulli",  # bernoulli, bernoulli_intensities, gaussian, gaussian_learned, discretized_logistic
        likelihood_std=0.1,  # gaussian
        estimator="vimco",  # reinforce, reinforce_baseline, leave_one_out, vimco, wake_sleep, gumbel_softmax, straight_through
        samples=5,  # draws of z per example
        baseline="",  # reinforce_baseline: the name of a network
        wake_q=False,  # wake_sleep: the phases of q
        sleep_q=False,
        relaxation=0.0,  # gumbel_softmax, straight_through: the temperature, reached after relaxation_steps
        relaxation_start=0.0,
        relaxation_steps=0,
        beta=1.0,
        beta_schedule="constant",  # constant, linear, cyclical
        beta_start=0.0,
        beta_steps=0,
        beta_ramp=0.5,
    )
    return ConfigDict(c | changes)


_HIERARCHY = dict(std="softplus", std_bound=10.0, likelihood="bernoulli", likelihood_std=0.1, samples=1)
_HIERARCHY |= dict(beta=1.0, beta_schedule="constant", beta_start=0.0, beta_steps=0, beta_ramp=0.5)


def layered(event: tuple[int, ...], levels: int, latents: tuple[int, ...], **changes) -> ConfigDict:
    """The model section of a VAE of stochastic layers: every key of vaeflow/models/layered.py."""
    c = dict(
        kind="layered",
        event=event,
        levels=levels,
        latents=latents,  # sizes, from the data up
        encoders=tuple(f"encoder_{i + 1}" for i in range(len(latents))),  # names of parts: q(z_1|x), q(z_2|z_1), ...
        decoders=tuple(f"decoder_{i + 1}" for i in range(len(latents))),  # p(x|z_1), p(z_1|z_2), ...
        objective="elbo",  # as in `vae`, as is the rest
        alpha=0.0,
        **_HIERARCHY,
    )
    return ConfigDict(c | changes)


def ladder(event: tuple[int, ...], levels: int, **changes) -> ConfigDict:
    """The model section of a ladder VAE: every key of vaeflow/models/ladder.py."""
    c = dict(
        kind="ladder",
        event=event,
        levels=levels,
        strides=(2, 2, 2),  # one number a scale, from the data up: how many times coarser it is than the one below
        blocks=(1, 1, 1),  # levels at each scale
        latents=(1, 4, 8),  # channels of a level at a pixel, per scale
        width=32,  # features a pixel
        kernel=3,
        activation="gelu",
        dtype="float32",
        posterior="joint",  # joint, weighted (by precision, with the prior's moments)
        free_bits=0.0,  # nats a level
        **_HIERARCHY,  # as in `vae`
    )
    return ConfigDict(c | changes)


def second_stage(c: ConfigDict, vae: str) -> None:
    """Put a contrastive prior over a trained VAE: every key of vaeflow/models/contrastive.py.

    vae: the config row of the VAE; training needs its run, --config.model.frozen=WORKDIR.
    """
    c.parts = ConfigDict()
    c.model = ConfigDict(
        dict(
            kind="contrastive",
            frozen=vae,
            classifier="classifier",  # name of a part
            partition=100_000,  # draws of the prior that estimate its normaliser
        )
    )
    c.sample.sampler = "sir"  # prior, sir, langevin
    c.sample.proposals = 500  # of sir, for each sample
    c.sample.langevin_steps = 200  # after sir; proposals=1: after a draw of the prior
    c.sample.langevin_step_size = 1e-3


def posterior(c: ConfigDict, name: str, width: int = 64) -> None:
    """The posterior of a VAE's config: a layer over the Gaussian, its parameters from 32 features of the encoder."""
    c.model.update(posterior="posterior", posterior_context=32)
    if name == "full_covariance":
        c.parts.posterior = dict(kind="triangular")
    elif name in ("planar", "radial", "sylvester"):
        c.parts.posterior = repeat("posterior_step", 4 if name == "sylvester" else 16)
        c.parts.posterior_step = dict(kind=name) | (dict(columns=8, reflections=8) if name == "sylvester" else {})
    elif name == "iaf":  # inverted, a MAF draws and scores its own draws in one pass
        c.parts.posterior = dict(kind="inverse", of="posterior_steps")
        c.parts.posterior_steps = repeat("posterior_step", 2)
        c.parts.posterior_step = dict(kind="chain", of=("posterior_maf", "posterior_flip"))
        c.parts.posterior_maf = dict(kind="affine_autoregressive", made="posterior_made", cap=2.0)
        c.parts.posterior_made = made(2 * width)
        c.parts.posterior_flip = dict(kind="permutation", order="reverse")
    elif name == "spline":
        c.parts.posterior = dict(kind="inverse", of="posterior_steps")
        c.parts.posterior_steps = repeat("posterior_step", 2)
        c.parts.posterior_step = dict(kind="chain", of=("posterior_a", "posterior_b"))
        for part, flip in (("posterior_a", False), ("posterior_b", True)):
            c.parts[part] = spline("posterior_net", "alternating", flip)
        c.parts.posterior_net = mlp(width)


def prior(c: ConfigDict, name: str, width: int = 64) -> None:
    """The prior of a VAE's config: a layer over N(0, I), or another base."""
    if name == "mixture":
        c.model.prior_base = "prior_mixture"
        c.parts.prior_mixture = dict(kind="gaussian_mixture", components=50, spread=1.0, cap=3.0)
    elif name == "conditional":
        c.data.context = "label"
        c.model.prior_base = "prior_of_class"
        c.parts.prior_of_class = dict(kind="context_normal", cap=3.0)
    elif name == "vamp":
        c.model.pseudo_inputs = 100
    else:
        c.model.prior = "prior"
        c.parts.prior = repeat("prior_step", 1 if name == "autoregressive" else 4)
        c.parts.prior_step = dict(kind="chain", of=("prior_layer", "prior_flip"))
        c.parts.prior_flip = dict(kind="permutation", order="reverse")
    if name in ("maf", "autoregressive"):
        c.parts.prior_layer = dict(kind="affine_autoregressive", made="prior_made", cap=2.0)
        c.parts.prior_made = made(2 * width, 2 * width)
    if name == "autoregressive":  # every p(z_i | z_<i) is a mixture of Gaussians
        c.parts.prior_layer = dict(kind="mixture_autoregressive", made="prior_made", components=10, kernel="normal", cap=3.0)
    elif name == "realnvp":
        c.parts.prior_layer = affine("prior_net", "half", False)
        c.parts.prior_net = mlp(width, width)
    elif name == "spline":
        c.parts.prior_layer = spline("prior_net", "half", False)
        c.parts.prior_net = mlp(width, width)
