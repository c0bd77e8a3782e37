"""The hole in a VAE's prior, and the contrastive prior that fills it, on 25 Gaussians in the plane (Aneja et al. 2021).

    python -m experiments.train --config=configs/gaussians_ncp.py:vae --workdir=runs/gaussians_vae
    python -m experiments.train --config=configs/gaussians_ncp.py:ncp --workdir=runs/gaussians_ncp --config.model.frozen=runs/gaussians_vae
    python -m benchmarks.contrastive --workdir=runs/gaussians_ncp

The posteriors of the 25 modes lie apart in the latent plane; draws of N(0, I) fall between them and become samples between the
modes. A classifier of q(z) against p(z) reweights the prior; the encoder and the decoder stay as they were. figures/prior_hole.png
shows both. Means at {-4, -2, 0, 2, 4}^2, standard deviation 0.1; the scale of the paper's data is not known to us.
Expected (seed 0, 10,000 test points, NLL by IWAE-100 in nats): vae 4.265 +- 0.007, ncp 1.499 +- 0.008; 65 and 36 s of training on 2
busy CPU cores. What lies between the modes: results/contrastive.md.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import second_stage

ROWS = {
    "": "the row vae",
    "vae": "a VAE with 2 latents on 25 Gaussians in the plane",
    "ncp": "its prior reweighted by a classifier, the VAE as it was (needs --config.model.frozen)",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="density", name="25gaussians", size=100_000, val_fraction=0.01, batch=256)
    c.model = dict(kind="vae", latent=2, likelihood="gaussian", likelihood_std=0.05)
    c.parts = dict(encoder=mlp(256, 256), decoder=mlp(256, 256))
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=10_000, log_every=100, eval_every=1000, checkpoint_every=2500)
    c.eval.update(batch=1000, k=100, chunk=100)
    if row == "ncp":
        second_stage(c, "configs/gaussians_ncp.py:vae")
        c.parts.classifier = mlp(64, 64, 64, 64, activation="silu")
        c.data.batch = 512
        c.optim.learning_rate = 3e-3
        c.train.update(steps=8000, checkpoint_every=2000)
    return c
