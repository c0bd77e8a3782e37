"""Hierarchical VAEs on the digits: stochastic layers trained by the ELBO and as IWAE, the objective swap, ladders.

    python -m experiments.train --config=configs/digits_hierarchy.py --workdir=runs/two_layer
    python -m experiments.train --config=configs/digits_hierarchy.py:iwae50 --workdir=runs/iwae50
    python -m experiments.train --config=configs/digits_hierarchy.py:vae_then_iwae --config.init_from=runs/two_layer
    python -m experiments.train --config=configs/digits_hierarchy.py:iwae_then_vae --config.init_from=runs/iwae50

Data, splits and likelihood are those of digits_vae.py. Expected (seed 0, 300 test images; standard errors 0.6 to 0.8; KL by level from
the data up; one row each, on a busy CPU):

    row              -ELBO   NLL (IWAE-1000)   KL by level                         active units
    one_layer        93.78   90.75             14.92                               20 of 20
    (none)           91.23   87.93             7.65 + 6.07                         20+10 of 20+10
    iwae5            91.70   86.52             7.52 + 6.53                         20+10
    iwae50           95.37   86.11             7.40 + 6.50                         20+10
    vae_then_iwae    93.35   86.44             6.97 + 6.04                         20+10
    iwae_then_vae    91.24   86.69             8.19 + 7.19                         20+10
    ladder           86.68   83.81             0.08 + 3.32 + 6.24 + 2.19 + 1.66    1+8+4+3+1 of 16+8+8+4+4
    ladder_mlp       85.25   82.13             0.00 + 1.15 + 5.70 + 3.23 + 3.70    15+9+7+3+3 of 16+12+8+6+4

All units of the stochastic layers are active, so these sizes do not show IWAE's larger number of them. In a ladder a unit may be active
at no KL: its posterior follows a prior that the levels above move. The second stages of the swap train 1,500 further steps.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import stack

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


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=32)
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    c.eval.update(k=1000, chunk=50)
    if row.startswith("ladder"):
        sizes = dict(strides=(2, 2, 2), blocks=(1, 2, 2), latents=(1, 2, 4), width=24)
        if row == "ladder_mlp":
            sizes = dict(strides=(8, 1, 1, 1, 1), blocks=(1,) * 5, latents=(16, 12, 8, 6, 4), width=128, posterior="weighted")
            c.parts.beta = dict(kind="linear", steps=1000)
        c.model = dict(kind="ladder", likelihood="discretized_logistic", **sizes)
        return c
    draws = DRAWS.get(row, 1)
    latents = (20,) if row == "one_layer" else (20, 10)
    c.model = dict(kind="layered", latents=latents, likelihood="discretized_logistic")
    stack(c, *(mlp(128, activation="tanh") for _ in latents))
    if draws > 1:
        c.parts.objective = dict(kind="iwae", k=draws)
    if "then" in row:
        c.optim.update(learning_rate=1e-4, schedule="constant")
        c.train.steps = 1500
    return c
