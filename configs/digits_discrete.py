"""VAEs with a discrete latent on the digits (digits_vae.py), by every estimator of the gradient: the same networks, draws and steps.

    python -m experiments.train --config=configs/digits_discrete.py:bernoulli_vimco --workdir=runs/digits_vimco

Rows are LATENT_ESTIMATOR; "" is bernoulli_vimco. The pixels are dynamically binarized and Bernoulli, so NLL is a likelihood, not
comparable with that of the 17 grey values. The estimators side by side in bias and variance: `python -m benchmarks.gradient_variance`.
Expected (seed 0, 300 test images; -ELBO and NLL by IWAE-1000, in nats; standard errors over the same images 0.2 to 0.3; 10 to 20 s of
training on 2 shared CPU cores):

    bernoulli_reinforce           25.95   25.11          bernoulli_wake_sleep          25.35   23.56
    bernoulli_baseline            24.86   24.21          bernoulli_gumbel              24.55   23.70
    bernoulli_leave_one_out       24.35   23.87          bernoulli_straight_through    24.62   24.29
    bernoulli_vimco               25.45   23.61          categorical_gumbel            24.45   23.43
                                                         categorical_vimco             24.76   23.35

The estimators of the ELBO have the better -ELBO, those of the bound of 5 draws the better NLL, but for REINFORCE alone; one seed, so
a tenth of a nat says nothing.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import ESTIMATORS

LATENTS = {"bernoulli": ("32 bits", 32, 2), "categorical": ("8 variables of 8 categories", 8, 8)}
ROWS = {"": "32 bits, VIMCO, 5 draws"} | {
    f"{latent}_{name}": f"{size}, {title}, 5 draws" for latent, (size, _, _) in LATENTS.items() for name, (title, _) in ESTIMATORS.items()
}


def get_config(row: str = "") -> ConfigDict:
    latent, _, estimator = (row or "bernoulli_vimco").partition("_")
    c = base()
    c.data.update(kind="digits", batch=64, binarize="dynamic")
    _, variables, categories = LATENTS[latent]
    c.model = dict(kind="discrete_vae", variables=variables, categories=categories, prior="learned")
    c.parts = dict(encoder=mlp(256), decoder=mlp(256)) | ESTIMATORS[estimator][1]
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=3000, eval_every=300, checkpoint_every=600)
    c.eval.update(k=1000, chunk=50)
    return c
