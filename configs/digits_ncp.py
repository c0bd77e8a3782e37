"""A contrastive prior over the latents of the digits' VAE (digits_vae.py), its encoder and decoder as they were.

    python -m experiments.train --config=configs/digits_vae.py --workdir=runs/digits_vae
    python -m experiments.train --config=configs/digits_ncp.py --workdir=runs/digits_ncp --config.model.frozen=runs/digits_vae

`best` is chosen by the classifier's cross-entropy on the validation split.
Expected (seed 0, 300 test images, NLL by IWAE-100): the VAE 88.775 ± 0.742 nats, with the contrastive prior 86.899 ± 0.767, which the
estimate of log Z makes too low by 0.033 ± 0.011; effective sample size 41.1 of 500 proposals; 7 s of training on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import digits_vae
from configs.base import mlp
from configs.vaes import second_stage

ROWS = {"": "the prior of configs/digits_vae.py's default row, reweighted by a classifier (needs --config.model.frozen)"}


def get_config(row: str = "") -> ConfigDict:
    c = digits_vae.get_config(row)
    second_stage(c, "configs/digits_vae.py")
    c.parts.classifier = mlp(64, 64, activation="silu")
    c.data.batch = 256
    c.train.update(steps=2000, eval_every=100, checkpoint_every=500, patience=5)
    c.eval.k = 100
    return c
