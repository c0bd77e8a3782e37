"""Ladder VAEs on dynamically binarized MNIST: convolutional and fully connected, inferred from the top down.

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once
    python -m experiments.train --config=configs/mnist_ladder.py --config.data.dir=DATA_DIR --workdir=runs/mnist_ladder
    python -m experiments.train --config=configs/mnist_ladder.py:mlp --config.data.dir=DATA_DIR --workdir=runs/mnist_ladder_mlp

A likelihood: NLL by IWAE-100, best by train[50000:], trained on train[:50000], as the rows of mnist_vae.py that are one. The sizes and the
number of passes are for some minutes of two CPU cores, the KL term rises over the first tenth of them; the row "deep" is for an
accelerator. Published with 2,000 passes and other sizes (Sonderby et al. 2016, v1, five layers of 64 to 4 latents, 5,000 draws): VAE 82.14,
probabilistic ladder 81.87, at best 81.20. Expected (default row, seed 0): 101.02 +- 0.24 nats; 104 s of training on 2 shared CPU cores,
and 6 minutes of evaluation.
"""

from ml_collections import ConfigDict

from configs.base import base

ROWS = {
    "": "convolutional: two levels of 7x7 pixels with 2 channels, two of 1x1 with 16",
    "mlp": "fully connected: five levels of 64, 32, 16, 8, 4 latents, precision-weighted posterior",
    "deep": "convolutional, 21 levels at 14x14, 7x7 and 1x1 pixels, free bits; for an accelerator",
}

# Sizes, and passes over the data.
SIZES = {
    "": (dict(strides=(4, 7), blocks=(2, 2), latents=(2, 16), width=32), 2),
    "mlp": (dict(strides=(28, 1, 1, 1, 1), blocks=(1,) * 5, latents=(64, 32, 16, 8, 4), width=256, posterior="weighted"), 25),
    "deep": (dict(strides=(2, 2, 7), blocks=(8, 8, 5), latents=(1, 4, 16), width=64), 400),
}


def get_config(row: str = "") -> ConfigDict:
    sizes, passes = SIZES[row]
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", binarize="dynamic", batch=128)
    epoch = 50_000 // c.data.batch
    c.model = dict(kind="ladder", **sizes)
    c.parts.beta = dict(kind="linear", steps=passes * epoch // 10)
    c.optim.update(learning_rate=1e-3, clip=10.0, schedule="cosine")
    c.train.update(steps=passes * epoch, log_every=epoch // 4, eval_every=epoch, checkpoint_every=epoch)
    c.eval.update(k=100, chunk=10, batch=500)
    if row == "deep":
        c.parts.objective = dict(kind="free_bits", nats=0.05)
    return c
