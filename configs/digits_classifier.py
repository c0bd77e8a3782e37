"""Classifiers of the handwritten digits of digits_vae.py (1,797 real 8x8 images, 17 grey values, splits 1297/200/300): p(label | x).

    python -m experiments.train --config=configs/digits_classifier.py --workdir=runs/digits_classifier
    python -m experiments.train --config=configs/digits_classifier.py:noised --workdir=runs/digits_noised

`sample_quality` compares samples and data by the features of such a run, with
--config.eval.settings.sample_quality.classifier=runs/digits_classifier (experiments.train, experiments.evaluate) or
--sample_quality.classifier=runs/digits_classifier (experiments.diagnose). `best` is chosen by the cross-entropy on the validation split.
The row `noised` learns p(label | x_t, t) on the path vp, for the row classifier_guided of configs/digits_diffusion.py.
Expected (seed 0, 300 test images, accuracy and nats of cross-entropy): 97.7 ± 0.9% and 0.077 ± 0.022; mlp 98.3 ± 0.7% and 0.051 ± 0.016;
smoothing 99.3 ± 0.5% and 0.172 ± 0.011; noised, at t_min, 95.3 ± 1.2% and 0.174 ± 0.031. 5 to 12 s of training on 2 busy CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp

ROWS = {
    "": "convolutional classifier, 64 features",
    "mlp": "the same with one hidden layer in place of the convolutions",
    "smoothing": "the default row with label smoothing of 0.1",
    "noised": "a classifier of digits noised along the path vp, whose gradient guides a score SDE",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 128
    c.model = dict(kind="classifier", classes=10, smoothing=0.1 if row == "smoothing" else 0.0)
    net = dict(kind="conv", channels=(16, 32))
    c.parts = dict(net=mlp(128) if row == "mlp" else net)
    if row == "noised":
        c.model.update(path="vp", embedding="sinusoidal", t_min=1e-5)
        c.parts.layer = dict(kind="scale", shift=17 / 2, factor=17 / 2)
    c.optim.update(learning_rate=2e-3, schedule="cosine", ema=0.99)
    c.train.update(steps=600, eval_every=50, checkpoint_every=200)
    return c
