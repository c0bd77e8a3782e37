"""What the configs of VAEs share beside configs/base.py: estimators of discrete latents, second stages, and the posteriors and priors that
a VAE may have, each as its parts. The formulas stand in vaeflow/models, vaeflow/objectives and vaeflow/bijectors."""

from typing import Any

from ml_collections import ConfigDict

from configs.base import affine, made, mlp, repeat, spline

PRIORS = ("mixture", "vamp", "realnvp", "maf", "spline", "autoregressive", "conditional", "cnf")
POSTERIORS = ("full_covariance", "iaf", "planar", "radial", "sylvester", "spline", "cnf")

# name: (one line, the parts of a discrete-latent VAE that is trained so)
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "reinforce": ("REINFORCE", dict(objective=dict(kind="reinforce", k=5))),
    "baseline": ("REINFORCE with a network as baseline", dict(objective=dict(kind="reinforce", k=5), baseline=mlp(64))),
    "leave_one_out": ("REINFORCE with the other draws as baseline", dict(objective=dict(kind="leave_one_out", k=5))),
    "vimco": ("VIMCO", dict(objective=dict(kind="vimco", k=5))),
    "wake_sleep": ("reweighted wake-sleep, wake phase of q", dict(objective=dict(kind="wake_sleep", k=5))),
    "gumbel": (
        "Gumbel-softmax",
        dict(objective=dict(kind="gumbel_softmax", k=5), temperature=dict(kind="geometric", start=1.0, end=0.5, steps=1500)),
    ),
    "straight_through": ("straight-through Gumbel-softmax", dict(objective=dict(kind="straight_through", k=5, temperature=1.0))),
}


def field(net: str) -> dict:
    """A part: a continuous flow of few steps; the penalties keep its trajectories so straight that they suffice."""
    return dict(kind="cnf", net=net, steps=4, trace="hutchinson", kinetic=0.01, jacobian=0.01)


def stack(c: ConfigDict, *nets: dict) -> None:
    """The networks of a layered VAE, one per stochastic layer from the data up, on its way up and on its way down."""
    sides = [tuple(f"{side}_{i + 1}" for i in range(len(nets))) for side in ("encoder", "decoder")]
    c.model.encoders, c.model.decoders = sides
    c.parts.update({name: net for side in sides for name, net in zip(side, nets, strict=True)})


def second_stage(c: ConfigDict, vae: str) -> None:
    """Put a contrastive prior over a trained VAE (vaeflow/models/contrastive.py).

    vae: the config row of the VAE; training needs its run, --config.model.frozen=WORKDIR.
    """
    c.parts = {}
    c.model = dict(kind="contrastive", frozen=vae)


def posterior(c: ConfigDict, name: str, width: int = 64) -> None:
    """The posterior of a VAE's config: a layer over the Gaussian, its parameters from 32 features of the encoder."""
    c.model.posterior_context = 32
    if name == "full_covariance":
        c.parts.posterior = dict(kind="triangular")
    elif name in ("planar", "radial", "sylvester"):
        c.parts.posterior = repeat("posterior_step", 4 if name == "sylvester" else 16)
        c.parts.posterior_step = dict(kind=name) | (dict(columns=8, reflections=8) if name == "sylvester" else {})
    elif name == "iaf":  # inverted, a MAF draws and scores its own draws in one pass
        c.parts.posterior = dict(kind="inverse", of="posterior_steps")
        c.parts.posterior_steps = repeat("posterior_step", 2)
        c.parts.posterior_step = dict(kind="chain", of=("posterior_maf", "posterior_flip"))
        c.parts.posterior_maf = dict(kind="affine_autoregressive", made="posterior_made")
        c.parts.posterior_made = made(2 * width)
        c.parts.posterior_flip = dict(kind="permutation")
    elif name == "spline":
        c.parts.posterior = dict(kind="inverse", of="posterior_steps")
        c.parts.posterior_steps = repeat("posterior_step", 2)
        c.parts.posterior_step = dict(kind="chain", of=("posterior_a", "posterior_b"))
        for part, flip in (("posterior_a", False), ("posterior_b", True)):
            c.parts[part] = spline("posterior_net", "alternating", flip)
        c.parts.posterior_net = mlp(width)
    elif name == "cnf":
        c.parts.posterior = field("posterior_net")
        c.parts.posterior_net = dict(kind="concat_squash", hidden=(width, width), activation="tanh")


def prior(c: ConfigDict, name: str, width: int = 64) -> None:
    """The prior of a VAE's config: a layer over N(0, I), or another base."""
    if name == "mixture":
        c.model.prior_base = "prior_mixture"
        c.parts.prior_mixture = dict(kind="gaussian_mixture")
    elif name == "conditional":
        c.data.context = "label"
        c.model.prior_base = "prior_of_class"
        c.parts.prior_of_class = dict(kind="context_normal")
    elif name == "vamp":
        c.model.pseudo_inputs = 100
    elif name == "cnf":
        c.parts.prior = field("prior_net")
        c.parts.prior_net = dict(kind="concat_squash", hidden=(width, width), activation="tanh")
    else:
        c.parts.prior = repeat("prior_step", 1 if name == "autoregressive" else 4)
        c.parts.prior_step = dict(kind="chain", of=("prior_layer", "prior_flip"))
        c.parts.prior_flip = dict(kind="permutation")
    if name in ("maf", "autoregressive"):
        c.parts.prior_layer = dict(kind="affine_autoregressive", made="prior_made")
        c.parts.prior_made = made(2 * width, 2 * width)
    if name == "autoregressive":  # every p(z_i | z_<i) is a mixture of Gaussians
        c.parts.prior_layer = dict(kind="mixture_autoregressive", made="prior_made")
    elif name == "realnvp":
        c.parts.prior_layer = affine("prior_net", "half", False)
        c.parts.prior_net = mlp(width, width)
    elif name == "spline":
        c.parts.prior_layer = spline("prior_net", "half", False)
        c.parts.prior_net = mlp(width, width)
