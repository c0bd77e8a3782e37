"""Discrete diffusion of the 8x8 digits in their 17 grey values (1,797 images, splits 1297/200/300): D3PM, masked diffusion, flow matching.

    python -m experiments.train --config=configs/digits_d3pm.py:gaussian --workdir=runs/digits_gaussian
    python -m experiments.sample --workdir=runs/digits_gaussian --config.sample.steps=25
    python -m experiments.train --config=configs/digits_d3pm.py:masked --workdir=runs/digits_masked
    python -m experiments.sample --workdir=runs/digits_masked --config.sample.remask=0.2

D3PM has T = 1000 and the cross-entropy's weight of 0.001 for images, the schedules of the paper: cosine (uniform), mutual information
(absorbing), linear (Gaussian). The network is the small U-Net of digits_diffusion.py. The images are integers: no dequantisation.
Not trained yet.
"""

from ml_collections import ConfigDict

from configs.base import base

MODELS = {
    "uniform": "D3PM, uniform transitions, cosine schedule",
    "absorbing": "D3PM, absorbing state",
    "gaussian": "D3PM, discretized Gaussian transitions",
    "gaussian_logistic": "D3PM, discretized Gaussian transitions, truncated logistic output",
    "masked": "masked diffusion in continuous time, the bound alone",
    "flow_matching": "discrete flow matching from masks, the cross-entropy alone",
}
ROWS = {"": MODELS["gaussian_logistic"]} | MODELS


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64)
    c.optim.update(learning_rate=2e-3, clip=1.0, schedule="cosine")
    c.train.update(steps=2500)
    c.eval.update(measures=("likelihood",), k=50, chunk=25)
    discrete_images(c, row or "gaussian_logistic", dict(kind="unet", channels=16, blocks=1), "mask")
    return c


def discrete_images(c: ConfigDict, name: str, net: dict, state: str) -> None:
    """The model `name` of MODELS, in place. state: what D3PM's absorbing state is."""
    c.model = dict(kind="categorical", reads="values")
    c.parts = ConfigDict(dict(net=net))
    if name in ("masked", "flow_matching"):
        c.model.update(corruption="absorbing", timesteps=0)
        c.model.update(dict(vlb=0.0, cross_entropy=1.0) if name == "flow_matching" else {})
        return
    c.model.update(timesteps=1000, cross_entropy=0.001)
    c.parts.corruption = dict(kind="absorbing", state=state) if name == "absorbing" else dict(kind=name.removesuffix("_logistic"))
    if name.endswith("_logistic"):
        c.model.output = "logistic"
