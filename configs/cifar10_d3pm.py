"""D3PM on CIFAR-10 with the settings of Austin et al. 2021 (arXiv 2107.03006), and its successors with the same network.

    python -m experiments.prepare --dataset=cifar10                       # once
    python -m experiments.train --config=configs/cifar10_d3pm.py:gaussian_logistic --config.data.dir=DATA_DIR --workdir=runs/cifar10_d3pm

Read was the authors' program (d3pm/images/config.py): the DDPM U-Net of 128 channels with two blocks per level and attention at 16 pixels,
dropout 0.1, T = 1000, cross-entropy 0.001, Adam 2e-4, batches of 128, clipping at 1, EMA 0.9999, 1.5 million steps, horizontal flips. The
absorbing state is the grey of level 128. The last 5,000 training images select. Not trained: no accelerator.

    published          IS     FID     NLL, bits/dim
    uniform            5.99   51.27   5.08
    absorbing          6.78   30.97   4.40
    gaussian           8.54    8.34   3.98
    gaussian_logistic  8.56    7.34   3.44
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.digits_d3pm import MODELS, discrete_images

ROWS = {"": MODELS["gaussian_logistic"]} | MODELS
NET = dict(kind="unet", channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), modulation="shift", dropout=0.1)


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="tfds", name="cifar10", train="train[:45000]", val="train[45000:]", test="test", augment=("flip",))
    c.optim.update(learning_rate=2e-4, clip=1.0, ema=0.9999)
    c.train.update(steps=1_500_000, log_every=500, eval_every=5000, checkpoint_every=5000)
    c.eval.update(measures=("likelihood",), k=20, chunk=4, batch=50)
    discrete_images(c, row or "gaussian_logistic", NET | dict(skip_scale=False), "middle")
    return c
