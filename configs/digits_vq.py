"""A VQ-VAE on the handwritten digits (digits_vae.py: 8x8 images, 17 grey values, splits 1297/200/300): 4x4 codes of 64 and their prior.

    python -m experiments.train --config=configs/digits_vq.py --workdir=runs/digits_vq
"""

from ml_collections import ConfigDict

from configs.base import base, vq

ROWS = {
    "": "4x4 codes out of 64, convolutional, a causal transformer as the prior",
    "2x2": "2x2 codes out of 256",
    "conditional": "conditioned on the label: p(x|label)",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 64
    c.model = vq((8, 8, 1), 17, grid=(4, 4), codes=64, width=8, likelihood="discretized_logistic")
    grids = dict(channels=(32,), kernel=3, stride=2, blocks=1, activation="relu", dtype="float32")
    c.parts = ConfigDict(
        dict(
            encoder=dict(kind="downsample", **grids),
            decoder=dict(kind="upsample", **grids),
            prior=dict(kind="causal_transformer", width=64, depth=2, heads=4, activation="gelu", dtype="float32"),
        )
    )
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    if row == "2x2":
        c.model.update(grid=(2, 2), codes=256)
        for part in ("encoder", "decoder"):
            c.parts[part].channels = (32, 32)
    elif row == "conditional":
        c.data.context = "label"
    return c
