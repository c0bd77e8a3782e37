"""A VAE on the handwritten digits that scikit-learn carries: 1,797 real 8x8 images with 17 grey values, no download.

    python -m experiments.train --config=configs/digits_vae.py --workdir=runs/digits_vae

Splits 1297/200/300 by a fixed seed; the likelihood is a discretised logistic on the 17 grey values, so NLL and bits/dim are those
of the data. The rows change one thing each.
Expected (default row, seed 0, 300 test images): -ELBO 91.58 ± 0.86, NLL at most 88.38 ± 0.73 nats, 1.992 bits/dim (IWAE-1000, an
upper bound: Pareto-k above 0.7 in 77% of the images; on 20 of them AIS is 0.37 ± 0.14 nats tighter);
10 s of training on 2 shared CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import POSTERIORS, PRIORS, posterior, prior

ROWS = {
    "": "VAE, 8 latents, MLP 256, discretised logistic likelihood (the default experiment)",
    "2d": "the same with 2 latents: draws the latent manifold",
    "conv": "convolutional encoder and decoder",
    "mixture_prior": "prior: a mixture of 50 Gaussians",
    "vamp_prior": "prior: VampPrior, the mixture of the posteriors of 100 pseudo-inputs",
    "realnvp_prior": "prior: RealNVP",
    "maf_prior": "prior: MAF",
    "spline_prior": "prior: RQ-NSF, coupling",
    "autoregressive_prior": "prior: every p(z_i | z_<i) a mixture of 10 Gaussians",
    "cnf_prior": "prior: a continuous flow (FFJORD), 4 steps of rk4",
    "conditional_prior": "conditioned on the label, which has a Gaussian of its own in the prior too",
    "full_covariance": "posterior: a Gaussian with a full covariance matrix",
    "iaf": "posterior: 2 inverse autoregressive flows over the Gaussian, their context from the encoder",
    "planar": "posterior: 16 planar flows, their parameters from the encoder",
    "radial": "posterior: 16 radial flows",
    "sylvester": "posterior: 4 Sylvester flows, 8 columns by 8 Householder reflections",
    "spline": "posterior: 4 inverse spline couplings",
    "cnf": "posterior: a continuous flow (FFJORD), 4 steps of rk4, its network conditioned on the encoder",
    "cyclical": "cyclical warm-up of beta: 4 cycles",
    "free_bits": "linear warm-up of beta and 0.1 nats of free bits per latent",
    "conditional": "conditioned on the label: p(x|label)",
    "gaussian": "Gaussian likelihood with a learned standard deviation, 4 draws per example",
    "bfloat16": "networks in bfloat16, parameters and log-densities in float32",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64)
    c.model = dict(kind="vae", latent=8, likelihood="discretized_logistic")
    c.parts = dict(encoder=mlp(256), decoder=mlp(256))
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    c.eval.update(k=1000, chunk=50)
    if row == "2d":
        c.model.latent = 2
    elif row == "conv":
        c.parts.encoder = dict(kind="conv", channels=(16, 32), hidden=(128,))
        c.parts.decoder = dict(kind="deconv", channels=(32, 16), hidden=(128,))
    elif row.removesuffix("_prior") in PRIORS and row.endswith("_prior"):
        prior(c, row.removesuffix("_prior"))
    elif row in POSTERIORS:
        posterior(c, row)
    elif row == "cyclical":
        c.parts.beta = dict(kind="cyclical", steps=750)
    elif row == "free_bits":
        c.parts.update(objective=dict(kind="free_bits", nats=0.1), beta=dict(kind="linear", steps=750))
    elif row == "conditional":
        c.data.context = "label"
    elif row == "gaussian":
        c.model.likelihood = "gaussian_learned"
        c.parts.objective = dict(kind="elbo", k=4)
    elif row == "bfloat16":
        c.parts.encoder.dtype = c.parts.decoder.dtype = "bfloat16"
    return c
