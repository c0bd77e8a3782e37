"""A VAE on the handwritten digits that scikit-learn carries: 1,797 real 8x8 images with 17 grey values, no download.

    python -m experiments.train --config=configs/digits_vae.py --workdir=runs/digits_vae

Splits 1297/200/300 by a fixed seed; the likelihood is a discretised logistic on the 17 grey values, so NLL and bits/dim are those
of the data. The rows change one thing each.
Expected (default row, seed 0, 300 test images): -ELBO 91.58 ± 0.86, NLL (IWAE-1000) 88.38 ± 0.73 nats, 1.992 bits/dim;
10 s of training on 2 shared CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, mlp, repeat, spline, vae

ROWS = {
    "": "VAE, 8 latents, MLP 256, discretised logistic likelihood (the default experiment)",
    "2d": "the same with 2 latents: draws the latent manifold",
    "conv": "convolutional encoder and decoder",
    "flow_prior": "RealNVP prior over the latents",
    "flow_posterior": "inverse-spline posterior over the Gaussian, conditioned on the encoder",
    "planar": "16 planar flows over the Gaussian posterior, their parameters from the encoder",
    "radial": "16 radial flows in their place",
    "sylvester": "4 Sylvester flows in their place, 8 columns by 8 Householder reflections",
    "cyclical": "cyclical warm-up of beta: 4 cycles",
    "free_bits": "linear warm-up of beta and 0.1 nats of free bits per latent",
    "conditional": "conditioned on the label: p(x|label)",
    "gaussian": "Gaussian likelihood with a learned standard deviation, 4 draws per example",
    "bfloat16": "networks in bfloat16, parameters and log-densities in float32",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 64
    c.model = vae((8, 8, 1), 17, latent=8, likelihood="discretized_logistic")
    c.parts = ConfigDict(dict(encoder=mlp(256), decoder=mlp(256)))
    c.optim.learning_rate = 1e-3
    c.optim.schedule = "cosine"
    c.train.steps = 3000
    c.train.eval_every = 300
    c.train.checkpoint_every = 600
    c.eval.k = 1000
    c.eval.chunk = 50
    if row == "2d":
        c.model.latent = 2
    elif row == "conv":
        c.parts.encoder = dict(kind="conv", channels=(16, 32), kernel=3, stride=2, hidden=(128,), activation="relu", dtype="float32")
        c.parts.decoder = dict(kind="deconv", channels=(32, 16), kernel=3, stride=2, hidden=(128,), activation="relu", dtype="float32")
    elif row == "flow_prior":
        c.model.prior = "flow"
        c.parts.flow = repeat("step", 4)
        c.parts.step = dict(kind="chain", of=("coupling_a", "coupling_b"))
        for name, flip in (("coupling_a", False), ("coupling_b", True)):
            c.parts[name] = affine("flow_net", "alternating", flip)
        c.parts.flow_net = mlp(64)
    elif row == "flow_posterior":
        c.model.posterior = "flow"
        c.model.posterior_context = 32
        c.parts.flow = dict(kind="inverse", of="steps")
        c.parts.steps = repeat("step", 2)
        c.parts.step = dict(kind="chain", of=("coupling_a", "coupling_b"))
        for name, flip in (("coupling_a", False), ("coupling_b", True)):
            c.parts[name] = spline("flow_net", "alternating", flip)
        c.parts.flow_net = mlp(64)
    elif row in ("planar", "radial", "sylvester"):
        c.model.posterior = "flow"
        c.model.posterior_context = 32
        c.parts.flow = repeat("step", 4 if row == "sylvester" else 16)
        c.parts.step = dict(kind=row) | (dict(columns=8, reflections=8) if row == "sylvester" else {})
    elif row == "cyclical":
        c.model.update(beta_schedule="cyclical", beta_steps=750)
    elif row == "free_bits":
        c.model.update(beta_schedule="linear", beta_steps=750, free_bits=0.1)
    elif row == "conditional":
        c.data.context = "label"
    elif row == "gaussian":
        c.model.update(likelihood="gaussian_learned", samples=4)
    elif row == "bfloat16":
        c.parts.encoder.dtype = c.parts.decoder.dtype = "bfloat16"
    return c
