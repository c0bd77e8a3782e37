"""VQ-VAEs on the handwritten digits of digits_vae.py (1,797 real 8x8 images, 17 grey values, splits 1297/200/300), with a prior over codes.

    python -m experiments.train --config=configs/digits_vq.py --workdir=runs/digits_vq

The number is a bound: -log p(x|codes) at the codes that the encoder names, plus their length -log p(codes) under the prior.
Expected (default row, seed 0, 300 test images): 93.99 ± 0.82 nats, 2.119 bits/dim: 79.61 for the image, 14.38 for its codes; 88 s of
training on 2 busy CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base

ROWS = {
    "": "2x2 codes out of 64, convolutional; a causal transformer over the codes",
    "4x4": "4x4 codes out of 16: sharper reconstructions, longer codes",
    "conditional": "2x2 codes out of 64, conditioned on the label: p(x|label)",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 64
    c.model = dict(kind="vq", grid=(2, 2), codes=64, width=8, likelihood="discretized_logistic", commitment=0.0625)
    c.parts = dict(
        encoder=dict(kind="downsample", channels=(16, 32)),
        decoder=dict(kind="upsample", channels=(32, 16)),
        prior=dict(kind="causal_transformer", width=32, depth=1),
    )
    c.optim.update(learning_rate=2e-3, schedule="cosine")
    c.train.update(steps=1500, eval_every=150, checkpoint_every=300)
    if row == "4x4":
        c.model.update(grid=(4, 4), codes=16)
        c.parts.encoder.channels = c.parts.decoder.channels = (16,)
    elif row == "conditional":
        c.data.context = "label"
    return c
