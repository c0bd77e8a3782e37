"""Denoising score matching on the 8x8 digits (1,797 images, 17 grey values, splits 1297/200/300): anomalies ranked by the energy.

    python -m experiments.train --config=configs/digits_dae.py --workdir=runs/digits_dae
    python -m experiments.diagnose --workdir=runs/digits_dae --measures=anomaly --anomaly.against=flipped

x + u, u ~ U(0,1), in units of 4 grey values, which is the noise. There is no likelihood; samples are denoised.
Expected (seed 0, 300 test images, AUROC of the energy of test images against the same flipped left to right): 0.874 ± 0.015, dsm 0.920
± 0.013. Against noise, inverted and shuffled images both have 1.000; trained without the fives (data.classes), they have 0.960 ± 0.008 and
0.994 ± 0.002 against all 182 of them. 36 to 128 s of training on 2 CPU cores with six other programs. Samples of dsm look like digits.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp

ROWS = {
    "": "denoising autoencoder with tied weights, 512 hidden units",
    "dsm": "denoising score matching of an energy network",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 128
    c.model = dict(kind="dae", layer="units", hidden=512, objective="dae")
    c.parts = ConfigDict(dict(units=dict(kind="scale", shift=8.5, factor=4.0)))
    if row == "dsm":
        c.model.update(net="net", hidden=64, objective="dsm")
        c.parts.net = mlp(256, 256, activation="silu")
    c.optim.update(learning_rate=1e-3, clip=10.0, schedule="cosine", ema=0.99)
    c.train.update(steps=4000, eval_every=500, checkpoint_every=1000)
    c.eval.measures = ("anomaly",)
    c.eval.settings = dict(anomaly=dict(against="flipped"))
    c.sample.update(start=1.5, denoise=True)
    return c
