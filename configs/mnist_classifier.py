"""A classifier of MNIST, p(label | x), trained on train[:50000]; `python -m experiments.prepare --dataset=mnist` fetches the data once.

    python -m experiments.train --config=configs/mnist_classifier.py --config.data.dir=DATA_DIR --workdir=runs/mnist_classifier

`sample_quality` compares samples and data by its features; configs/digits_classifier.py has the command. `best` is chosen by the
cross-entropy on train[50000:].
Expected (seed 0, 10,000 test images): accuracy 98.7 ± 0.1%, cross-entropy 0.038 ± 0.003 nats; 43 s of training on 2 busy CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base

ROWS = {"": "convolutional classifier, 64 features, 5 passes"}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", batch=128)
    c.model = dict(kind="classifier", classes=10)
    c.parts.net = dict(kind="conv", channels=(16, 32))
    c.optim.update(learning_rate=2e-3, schedule="cosine", ema=0.99)
    c.train.update(steps=1950, eval_every=390, checkpoint_every=390)
    c.eval.batch = 500
    return c
