"""One VAE of the digits under every objective: bounds of log p(x), forms of the KL term, regularisers of the aggregate posterior.

    python -m experiments.train --config=configs/digits_objectives.py --workdir=runs/digits_elbo
    python -m experiments.train --config=configs/digits_objectives.py:iwae_50 --workdir=runs/digits_iwae_50
    python -m experiments.compare runs/digits_elbo runs/digits_iwae_50

Dynamically binarized, 16 latents, one hidden layer of 128: the same encoder, decoder and number of steps in every row, `best` by the
row's own bound, the last parameters where it trains none.
Expected (seed 0, 300 test images, NLL by IWAE-1000, standard errors 0.2): elbo 24.02, elbo_50 23.81, iwae_5 24.15, iwae_50 24.12 nats; at
most half a minute of training on 2 shared CPU cores. All but one of the units are active in each of them: what more draws do to
the active units shows on MNIST (mnist_iwae.py).
"""

from ml_collections import ConfigDict

from configs.base import base, mlp

_NO_KL, _CRITIC = dict(kind="elbo", beta=0.0), dict(kind="adversarial", weight=1.0)
_CAPACITY = dict(kind="capacity", nats=8.0, steps=1500, beta=10.0)
# row: (one line, the parts that make its objective)
_ROWS = {
    "elbo": ("ELBO, one draw", dict()),
    "elbo_5": ("ELBO, the mean of 5 draws", dict(elbo=dict(kind="elbo", k=5))),
    "elbo_50": ("ELBO, the mean of 50 draws", dict(elbo=dict(kind="elbo", k=50))),
    "elbo_path": ("ELBO without the score of q (sticking the landing)", dict(objective=dict(kind="elbo_path"))),
    "iwae_5": ("IWAE, 5 draws", dict(objective=dict(kind="iwae", k=5))),
    "iwae_50": ("IWAE, 50 draws", dict(objective=dict(kind="iwae", k=50))),
    "iwae_one_50": ("IWAE, 50 draws, backward through one of them", dict(objective=dict(kind="iwae_one", k=50))),
    "iwae_path_50": ("IWAE without the score of q", dict(objective=dict(kind="iwae_path", k=50))),
    "dreg_5": ("IWAE, doubly reparameterised gradients, 5 draws", dict(objective=dict(kind="dreg", k=5))),
    "dreg_50": ("IWAE, doubly reparameterised gradients, 50 draws", dict(objective=dict(kind="dreg", k=50))),
    "renyi": ("Renyi bound of order 0.5, 5 draws", dict(objective=dict(kind="renyi", alpha=0.5, k=5))),
    "beta": ("beta-VAE, beta 4", dict(elbo=dict(kind="elbo", beta=4.0))),
    "cyclical": ("cyclical warm-up of beta, 4 cycles", dict(beta=dict(kind="cyclical", steps=500))),
    "free_bits": ("0.1 nats of free bits a latent", dict(objective=dict(kind="free_bits", nats=0.1))),
    "capacity": ("KL held at a capacity that rises to 8 nats, weight 10", dict(objective=_CAPACITY)),
    "beta_tc": ("beta-TC-VAE, beta 4", dict(objective=dict(kind="tc", weight=3.0))),
    "info": ("InfoVAE: no KL term but 100 MMD^2", dict(objective=dict(kind="mmd", weight=100.0), elbo=_NO_KL)),
    "adversarial": ("adversarial autoencoder: no KL term but a critic", dict(objective=_CRITIC, critic=mlp(64, 64), elbo=_NO_KL)),
}
ROWS = {"": "the row elbo"} | {row: line for row, (line, _) in _ROWS.items()}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64, binarize="dynamic")
    c.model = dict(kind="vae", latent=16)
    c.parts = dict(encoder=mlp(128, activation="tanh"), decoder=mlp(128, activation="tanh")) | _ROWS[row or "elbo"][1]
    c.optim.update(learning_rate=1e-3, schedule="cosine")
    c.train.update(steps=2000, eval_every=200, checkpoint_every=500)
    c.eval.update(k=1000, chunk=50)
    if row in ("beta", "capacity", "beta_tc", "info", "adversarial"):  # these do not train the ELBO, by which `best` is chosen
        c.eval.params = "last"
    return c
