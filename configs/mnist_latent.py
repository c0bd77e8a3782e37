"""Latent diffusion on MNIST (mnist_vae.py says how to get it); digits_latent.py is the same on the 8x8 digits.

    python -m experiments.train --config=configs/mnist_latent.py:autoencoder_4 --config.data.dir=DATA_DIR --workdir=runs/mnist_autoencoder
    python -m experiments.train --config=configs/mnist_latent.py:diffusion_4 --config.data.dir=DATA_DIR \\
        --config.model.frozen=runs/mnist_autoencoder --workdir=runs/mnist_latent

FACTOR is 2 (latents 14x14x1) or 4 (7x7x3); configs/mnist_diffusion.py is factor 1. No row was trained to its end here.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.digits_latent import STAGE_2, autoencoder, second_stage, split_row

FACTORS = {"2": (14, 14, 1), "4": (7, 7, 3)}
CONDITIONAL = {name: line for name, line in STAGE_2.items() if name not in ("codes", "super_resolve", "flow")}
ROWS = {
    "": "diffusion_4",
    **{f"autoencoder_{f}": f"stage 1, the sides of the image by {f}: latents {shape}" for f, shape in FACTORS.items()},
    **{f"{name}_{f}": f"stage 2 on autoencoder_{f}: {line}" for name, line in CONDITIONAL.items() for f in FACTORS},
}


def get_config(row: str = "") -> ConfigDict:
    name, factor = split_row(row or "diffusion_4")
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test")
    shape = FACTORS[factor]
    if name == "autoencoder":
        autoencoder(c, shape, (32, 64)[: int(factor) // 2])
    else:
        net = dict(kind="unet", channels=32, multipliers=(1, 2) if factor == "2" else (1,), blocks=2)
        second_stage(c, name, shape, f"configs/mnist_latent.py:autoencoder_{factor}", net)
    c.train.steps = 5000
    c.eval.examples = 1000
    return c
