"""Flow matching, score SDEs, EDM and consistency training on CIFAR-10 at about the sizes of the papers.

    python -m experiments.prepare --dataset=cifar10                       # once
    python -m experiments.train --config=configs/cifar10_diffusion.py:edm --config.data.dir=DATA_DIR --workdir=runs/cifar10_edm

Read were the authors' programs, not the papers again: flow_matching has the settings of torchcfm's train_cifar10.py (FID 3.5 with
minibatch transport by its README), score_vp and score_subvp those of score_sde's cifar10_ddpmpp_continuous.py (batches of 128, 1.3 million
steps), edm those of edm's train.py, networks.py and training_loop.py (200 million images in batches of 512). Not as there: they train on
the grey values, here noise dequantises them; EDM's augmentations other than flips and the growth of its moving average; torchcfm halves and
doubles images by one convolution and has an attention after every block of 16 pixels, here blocks resample as in DDPM++.
consistency_training has the batches of 512, the rate and the 800,000 steps of Song et al. 2023 (arXiv 2303.01469), and the schedule, times
and loss of Song and Dhariwal 2024 (2310.14189), without its dropout. The last 5,000 training images select. No row was trained: no
accelerator.

`--dry_run` prints, of a step on one device in float32:

    row                     parameters     theirs                       GFLOP a step    memory of a step
    flow_matching           39,390,339     35,746,307 (torchcfm)        7,104           16.3 GB, batch 128
    score_vp, score_subvp   61,804,419     61.8 M (DDPM++)              11,004          25.2 GB, batch 128
    edm                     55,732,739     55.7 M                       86,414          140 GB, batch 512

The memory is that of XLA's program for a CPU; train.accumulate divides it.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.digits_diffusion import MODELS, image_diffusion

ROWS = {"": MODELS["flow_matching"]} | MODELS
DDPMPP = dict(kind="unet", channels=128, multipliers=(1, 2, 2, 2), blocks=4, attention=(16,), modulation="shift", dropout=0.1)
NETS = {
    "flow_matching": DDPMPP | dict(blocks=2, heads=4, skip_scale=False),
    "score_vp": DDPMPP,
    "score_subvp": DDPMPP,
    "edm": DDPMPP | dict(multipliers=(2, 2, 2), dropout=0.13),
    "consistency_training": DDPMPP | dict(multipliers=(2, 2, 2), dropout=0.0),
}
STEPS = {"flow_matching": 400_000, "edm": 390_625, "consistency_training": 800_000}


def get_config(row: str = "") -> ConfigDict:
    name = row or "flow_matching"
    c = base()
    c.data.update(kind="tfds", name="cifar10", train="train[:45000]", val="train[45000:]", test="test", augment=("flip",))
    c.train.update(steps=STEPS.get(name, 1_300_000), log_every=500, eval_every=5000, checkpoint_every=5000)
    c.eval.update(k=1, examples=1000)
    image_diffusion(c, name, 256, NETS[name])
    c.optim.update(learning_rate=2e-4, warmup=5000, clip=1.0, ema=0.9999)
    if name == "edm":
        c.parts.embedding = dict(kind="sinusoidal", times=1.0)  # of c_noise itself
        c.data.batch = 512
        c.optim.update(learning_rate=1e-3, clip=0.0, warmup=19_531, ema=0.5 ** (512 / 500_000))  # half-life: 500,000 images
    elif name == "consistency_training":
        c.data.batch = 512
        c.optim.update(learning_rate=4e-4, clip=0.0, warmup=0)
    return c
