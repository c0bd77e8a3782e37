"""A VAE on your own pictures: a folder of PNG or JPEG files of one size, or one subfolder a class.

    python -m experiments.train --config=configs/own_images.py --config.data.path=FOLDER --config.model.event=28,28,1 --workdir=runs/own

The splits are by a fixed seed: data.val_fraction and data.test_fraction. Number reached, time: yours.
"""

from ml_collections import ConfigDict

from configs.base import base

ROWS = {"": "convolutional VAE on a folder of pictures (data.kind=image_folder)"}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="image_folder", batch=64)
    c.model = dict(kind="vae", latent=16, likelihood="discretized_logistic")
    net = dict(kernel=4, hidden=(128,))
    c.parts = dict(encoder=dict(kind="conv", channels=(16, 32), **net), decoder=dict(kind="deconv", channels=(32, 16), **net))
    c.train.steps = 5000
    return c
