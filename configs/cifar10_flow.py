"""RealNVP, Glow and MintNet on CIFAR-10; bits/dim. `python -m experiments.prepare --dataset=cifar10` fetches it once.

    python -m experiments.train --config=configs/cifar10_flow.py:glow,paper --config.data.dir=DATA_DIR --workdir=runs/cifar10_glow
    python -m experiments.train --config=configs/cifar10_flow.py:realnvp --config.data.dir=DATA_DIR --workdir=runs/cifar10_realnvp

Rows are FLOW or FLOW,BUDGET, as in configs/mnist_flow.py, whose parts these are. `paper` has about the sizes of the papers (accelerators,
days): RealNVP with one cut, 8 residual blocks of 64 channels; Glow with three scales of 32 steps, 512 channels, on grey values in [-1/2,
1/2) without a logit; MintNet as its authors' configuration has it (16 pairs, 85 copies, batches of 32, 100 passes). Published bits/dim:
RealNVP 3.49, Glow 3.35 (Kingma and Dhariwal 2018, table 2); MintNet 3.32, which was not seen again. Not as there: RealNVP's weight and
batch normalisation inside its networks, its running average of batch statistics in training, its learned scale before the tanh, its
horizontal flips and L2 penalty; Glow's ActNorm inside its networks; MintNet's lack of ActNorm, its flips; clipping, moving average,
warm-up and the number of steps are ours; the last 5,000 training images select. No row was trained to its end: no accelerator.
"""

from ml_collections import ConfigDict

from configs.base import base
from configs.mnist_flow import FLOWS, schedule

LINES = {
    "realnvp": "RealNVP: one cut, checkerboard and channel couplings, residual networks, batch normalisation",
    "glow": "Glow: three scales of ActNorm, 1x1 convolution and channel coupling, learned split priors",
    "mintnet": "MintNet: three scales of masked convolutional layers, inverted by a fixed point",
}
BUDGETS = {  # sizes of the flow; then of training
    ("realnvp", "cpu"): (dict(scales=1, width=8, blocks=1), dict(batch=64, steps=2000)),
    ("realnvp", "paper"): (dict(scales=1, width=64, blocks=8), dict(batch=64, steps=500_000)),
    ("glow", "cpu"): (dict(scales=3, width=64, steps=6), dict(batch=64, steps=2500)),
    ("glow", "paper"): (dict(scales=3, width=512, steps=32, memory="invert"), dict(batch=512, steps=200_000)),
    ("mintnet", "cpu"): (dict(copies=(8, 4, 2), layers=(2, 2, 2)), dict(batch=32, steps=800)),
    ("mintnet", "paper"): (dict(copies=(85, 85, 85), layers=(5, 5, 6)), dict(batch=32, steps=140_600)),
}
ROWS = {"": f"{LINES['realnvp']} (cpu)"} | {
    f"{name}{suffix}": f"{line} ({suffix.strip(',') or 'cpu'})" for name, line in LINES.items() for suffix in ("", ",cpu", ",paper")
}


def get_config(row: str = "") -> ConfigDict:
    name, _, budget = (row or "realnvp").partition(",")
    sizes, training = BUDGETS[name, budget or "cpu"]
    c = base()
    c.data.update(kind="tfds", name="cifar10", train="train[:45000]", val="train[45000:]", test="test", batch=training["batch"])
    c.model = dict(kind="flow", layer="flow", flatten=False)
    if name == "glow":
        end = dict(flow=dict(kind="chain", of=("grey", "body")), grey=dict(kind="scale", shift=128.0, factor=256.0))
    else:
        end = dict(
            flow=dict(kind="chain", of=("grey", "logit", "body")),
            grey=dict(kind="scale", factor=256.0),
            logit=dict(kind="logit"),
        )
    c.parts = ConfigDict(end | FLOWS[name][0]((32, 32, 3), **sizes))
    schedule(c, name, budget or "cpu", training["steps"])
    return c
