"""Posterior collapse, and its cure: a decoder that models the digits pixel by pixel and needs no latent.

    python -m experiments.train --config=configs/collapse.py --workdir=runs/collapse
    python -m experiments.train --config=configs/collapse.py:warmup --workdir=runs/collapse_warmup
    python -m experiments.train --config=configs/collapse.py:free_bits --workdir=runs/collapse_free_bits
    python -m experiments.explore --show=recon_kl runs/collapse runs/collapse_warmup runs/collapse_free_bits

Binarized 8x8 digits. The encoder, three layers of sigmoids, learns slowly; before it says anything of x, the masked network has learned to
predict a pixel from those before it, and the KL term has pulled q(z|x) onto the prior: a z that carried information would now cost
what it saves (He et al. 2019, "Lagging inference networks and posterior collapse"). With a decoder whose pixels are independent given z
the same encoder learns more (factorised: KL 1.62 nats).
Expected (seed 0, 300 test images; KL in nats, active units, NLL by IWAE-100; under half a minute of training on 2 shared CPU cores): 0.13,
2 of 8, 23.56; warmup 1.51, 7 of 8, 23.40; free_bits 2.00, 8 of 8, 23.51.
"""

from ml_collections import ConfigDict

from configs.base import base, made, mlp

ROWS = {
    "": "VAE whose decoder is a masked network over the pixels: the posterior collapses",
    "warmup": "the same, its KL term rising from 0 over the first half of training",
    "free_bits": "the same, with 0.25 nats a latent dimension that cost nothing",
    "factorised": "the same without the masked network: pixels independent given z",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64, binarize="dynamic")
    c.model = dict(kind="vae", latent=8, autoregressive="pixels")
    c.parts = dict(encoder=mlp(64, 64, 64, activation="sigmoid"), decoder=mlp(256), pixels=made(256, 256))
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    c.eval.update(k=100, chunk=20)
    if row == "warmup":
        c.parts.beta = dict(kind="linear", steps=1500)
    elif row == "free_bits":
        c.parts.objective = dict(kind="free_bits", nats=0.25)
    elif row == "factorised":
        c.model.autoregressive = ""
    return c
