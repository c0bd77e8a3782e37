"""GANs on the 8x8 digits (1,797 images, 17 grey values, splits 1297/200/300): precision, recall, density and coverage of samples.

    python -m experiments.train --config=configs/digits_gan.py --workdir=runs/digits_gan
    python -m experiments.train --config=configs/digits_gan.py:wgan_gp --workdir=runs/digits_gan_wgan_gp
    python -m experiments.table --config=configs/table_gans_digits.py

Fully connected networks; x + u, u ~ U(0,1), scaled to [-1, 1]; moving averages of the generator's parameters are evaluated.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.gans import GANS, game

ROWS = {"": "the row non_saturating"} | {name: line for name, (line, *_) in GANS.items()}


def get_config(row: str = "") -> ConfigDict:
    row = row or "non_saturating"
    c = base()
    game(c, row, 256, 256)
    c.data.update(kind="digits", batch=64)
    c.model.latent = 16
    c.parts.layer = dict(kind="scale", shift=8.5, factor=8.5)
    if row == "gmmn":
        c.parts.objective.bandwidths = (1.0, 2.0, 4.0, 8.0, 16.0)  # of 64 dimensions
    if row in ("ebgan", "began", "magan"):
        c.parts.objective.features = 16
    if row == "ebgan":
        c.parts.objective.margin = 0.2
    c.optim.update(learning_rate=5e-4, ema=0.999)
    c.train.update(steps=6000, log_every=100, eval_every=6000, checkpoint_every=6000)
    c.eval.update(batch=300, measures=("sample_quality",), params="last")
    c.eval.settings = dict(sample_quality=dict(names=("energy", "neighbours"), extractor="none"))
    return c
