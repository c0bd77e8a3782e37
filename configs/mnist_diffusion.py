"""Flow matching, score SDEs, EDM and consistency training on MNIST (mnist_vae.py says how to get it): a U-Net.

    python -m experiments.train --config=configs/mnist_diffusion.py --config.data.dir=DATA_DIR --workdir=runs/mnist_diffusion

The NLL is a bound as in digits_diffusion.py, on 1,000 of the test images. No row was trained to its end here: no accelerator.
A step of the default row has 329 GFLOP (1,913,889 parameters, 2.1 GB); with
--config.parts.net.channels=8 --config.parts.net.blocks=1 --config.parts.net.attention="()" --config.data.batch=64 it is a fortieth.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.digits_diffusion import MODELS, image_diffusion

ROWS = {"": MODELS["flow_matching"]} | MODELS


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test")
    net = dict(kind="unet", channels=32, multipliers=(1, 2, 2), attention=(7,))
    c.optim.update(clip=1.0, schedule="cosine", warmup=500)
    c.train.update(steps=5000, checkpoint_every=1000, eval_every=1000)
    c.eval.update(k=1, examples=1000)
    image_diffusion(c, row or "flow_matching", 256, net)
    if row != "consistency_training":
        c.sample.update(trace="estimate", solver="rk4", solver_steps=20)
    return c
