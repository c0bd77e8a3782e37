"""VQ-VAEs on dynamically binarized MNIST (mnist_vae.py says how to get it) with a prior over codes, best by train[50000:].

    python -m experiments.train --config=configs/mnist_vq.py --config.data.dir=DATA_DIR --workdir=runs/mnist_vq

The number is a bound: -log p(x|codes) at the codes that the encoder names, plus their length -log p(codes) under the prior.
"""

from ml_collections import ConfigDict

from configs.base import base

ROWS = {
    "": "7x7 codes out of 64, convolutional; a causal transformer over the codes",
    "4x4": "4x4 codes out of 128",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", batch=128, binarize="dynamic")
    epoch = 50_000 // 128
    c.model = dict(kind="vq", grid=(7, 7), codes=64, width=16, decay=0.95)
    sizes = dict(kernel=4, blocks=0)
    c.parts = dict(
        encoder=dict(kind="downsample", channels=(16, 32), **sizes),
        decoder=dict(kind="upsample", channels=(32, 16), **sizes),
        prior=dict(kind="causal_transformer", width=32, depth=2),
    )
    c.optim.update(learning_rate=2e-3, schedule="cosine")
    c.train.update(steps=4 * epoch, log_every=epoch // 4, eval_every=epoch, checkpoint_every=epoch)
    c.eval.batch = 500
    if row == "4x4":
        c.model.update(grid=(4, 4), codes=128)
        c.parts.encoder.channels, c.parts.decoder.channels = (16, 32, 64), (64, 32, 16)
    return c
