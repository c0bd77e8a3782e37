"""VAEs with a discrete latent on dynamically binarized MNIST through TFDS; `python -m experiments.prepare --dataset=mnist` fetches it once.

    python -m experiments.train --config=configs/mnist_discrete.py:bernoulli --config.data.dir=DATA_DIR --workdir=runs/mnist_bernoulli
    python -m experiments.train --config=configs/mnist_discrete.py:categorical --config.data.dir=DATA_DIR --workdir=runs/mnist_categorical

Likelihoods: NLL by IWAE on the 10,000 test images, best by train[50000:], as the likelihood rows of mnist_vae.py.
Expected (categorical, seed 0): 103.97 +- 0.26 nats; 5 minutes of training on 2 shared CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import ESTIMATORS

ROWS = {
    "": "the row bernoulli",
    "bernoulli": "64 bits with a learned prior, VIMCO with 5 draws",
    "categorical": "20 variables of 10 categories with a learned prior, Gumbel-softmax",
}

EPOCH, PASSES = 50_000 // 128, 20


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", batch=128, binarize="dynamic")
    estimator, variables, categories = ("gumbel", 20, 10) if row == "categorical" else ("vimco", 64, 2)
    c.model = dict(kind="discrete_vae", variables=variables, categories=categories, prior="learned")
    c.parts = dict(encoder=mlp(512, activation="tanh"), decoder=mlp(512, activation="tanh")) | ESTIMATORS[estimator][1]
    if row == "categorical":
        c.parts.objective.k, c.parts.temperature.steps = 1, PASSES * EPOCH // 2
    c.optim.update(name="adamw", learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=PASSES * EPOCH, log_every=EPOCH // 4, eval_every=5 * EPOCH, checkpoint_every=5 * EPOCH)
    c.eval.update(k=100, chunk=10, batch=500)
    return c
