"""Hierarchical VAEs on the digits: stochastic layers trained by the ELBO and as IWAE, the objective swap, ladders.

python -m experiments.train --config=configs/digits_hierarchy.py --workdir=runs/two_layer
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import ladder, layered

ROWS = {
    "": "two stochastic layers of 20 and 10 latents, trained by the ELBO",
    "one_layer": "one stochastic layer of 20",
    "iwae5": "two stochastic layers, IWAE of 5 draws",
    "iwae50": "two stochastic layers, IWAE of 50 draws",
    "vae_then_iwae": 'objective swap, second stage: IWAE of 50 draws (needs --config.init_from, a run of the row "")',
    "iwae_then_vae": "objective swap, second stage: the ELBO (needs --config.init_from, a run of iwae50)",
    "ladder": "convolutional ladder: 5 levels at 4x4, 2x2 and 1x1 pixels",
    "ladder_mlp": "fully connected ladder of 5 levels, precision-weighted posterior, warm-up of beta",
}
DRAWS = {"iwae5": 5, "iwae50": 50, "vae_then_iwae": 50}
EVENT = (8, 8, 1)


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=32)
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    c.eval.update(k=1000, chunk=50)
    if row.startswith("ladder"):
        sizes = dict(strides=(2, 2, 2), blocks=(1, 2, 2), latents=(1, 2, 4), width=24)
        if row == "ladder_mlp":
            sizes = dict(strides=(8, 1, 1, 1, 1), blocks=(1, 1, 1, 1, 1), latents=(16, 12, 8, 6, 4), width=64)
            sizes |= dict(posterior="weighted", beta_schedule="linear", beta_steps=1000)
        c.model = ladder(EVENT, 17, likelihood="discretized_logistic", **sizes)
        return c
    draws = DRAWS.get(row, 1)
    latents = (20,) if row == "one_layer" else (20, 10)
    c.model = layered(EVENT, 17, latents, likelihood="discretized_logistic", samples=draws, objective="iwae" if draws > 1 else "elbo")
    for name in (*c.model.encoders, *c.model.decoders):
        c.parts[name] = mlp(128, activation="tanh")
    if "then" in row:
        c.optim.update(learning_rate=1e-4, schedule="constant")
        c.train.steps = 1500
    return c
