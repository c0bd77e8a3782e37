"""The posteriors and priors that a VAE's config may have, each as its parts; the formulas stand in vaeflow/bijectors and vaeflow/models."""

from ml_collections import ConfigDict

from configs.base import affine, made, mlp, repeat, spline

PRIORS = ("mixture", "vamp", "realnvp", "maf", "spline", "autoregressive", "conditional")
POSTERIORS = ("full_covariance", "iaf", "planar", "radial", "sylvester", "spline")


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
