"""Toys of families without a density, with two players, with a frozen teacher, of sequences and of pairs.

    python -m experiments.train --config=configs/toy_families.py:wgan_gp --workdir=runs/wgan_gp
    python -m experiments.train --config=configs/toy_families.py:teacher --workdir=runs/teacher
    python -m experiments.train --config=configs/toy_families.py:student --workdir=runs/student --config.model.teacher=runs/teacher

Expected (row wgan_gp, seed 0): all of the 8 Gaussians have samples.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, mlp, repeat

ROWS = {
    "teacher": "a flow on moons, with a sinh-arcsinh map per dimension at the data end",
    "energy": "a generator by the energy distance on moons; best by the energy distance of validation samples",
    "wgan_gp": "WGAN-GP on 8 Gaussians, 5 steps of the critic for each of the generator",
    "student": "a one-pass student of the teacher (needs --config.model.teacher)",
    "markov": "a second-order Markov model of sequences of 5 symbols",
    "bridge": "flow matching from 8 Gaussians to moons",
    "vae": "a VAE by the ELBO and the IWAE bound together, the ELBO's share by a schedule",
}
SMALL = dict(steps=120, log_every=20, eval_every=40, checkpoint_every=80)


def get_config(row: str = "teacher") -> ConfigDict:
    c = base()
    c.data.update(kind="density", name="moons", size=2000, batch=64, val_fraction=0.5, test_fraction=0.5)
    c.sample = ConfigDict(dict(n=16))
    c.optim.update(learning_rate=5e-3)
    c.train.update(SMALL)
    c.eval.update(k=4, chunk=2)
    c.eval.settings = ConfigDict(dict(sample_quality=dict(names=("energy", "neighbours"))))
    c.parts.net = mlp(32, 32)
    if row == "teacher":
        c.model = dict(kind="flow", layer="flow")
        c.parts.flow = dict(kind="chain", of=("tails", "norm", "steps"))
        c.parts.update(tails=dict(kind="sinh_arcsinh"), norm=dict(kind="actnorm"), steps=repeat("step", 2))
        c.parts.step = dict(kind="chain", of=("first", "second"))
        c.parts.update(first=affine("net", "half", False), second=affine("net", "half", True))
    elif row == "energy":
        c.model = dict(kind="energy_generator", latent=2, generator="net")
        c.eval.select = "sample_quality.energy"
    elif row == "wgan_gp":
        c.data.update(name="8gaussians", batch=128)
        c.model = dict(kind="gan", latent=2, critic="wide", generator="wide", objective="game")
        c.parts.update(wide=mlp(64, 64), game=dict(kind="wgan_gp", weight=1.0, drift=1e-3))
        c.optim.update(learning_rate=2e-3, b1=0.5, b2=0.9, turns=("critic:5", "generator:1"), ema=0.99)
        c.train.update(steps=6 * 700, log_every=600, eval_every=4200, checkpoint_every=3600)
    elif row == "student":
        teacher = "configs/toy_families.py:teacher"
        c.model = dict(kind="flow_student", teacher=teacher, student="siren", decay=0.9, weight=0.1, jitter=0.05)
        c.parts.siren = dict(kind="siren", hidden=(32, 32), frequency=1.0)
    elif row == "markov":
        c.data.update(kind="chain", name="", levels=5, val_fraction=0.1, test_fraction=0.1)
        c.model = dict(kind="markov", order=2, net="net")
    elif row == "bridge":
        c.data.update(kind="pair", name="", pairing="shuffle")
        c.data.x, c.data.x0 = ConfigDict(dict(kind="density", name="moons")), ConfigDict(dict(kind="density", name="8gaussians"))
        c.model = dict(kind="bridge", velocity="net")
        c.sample.steps = 10
    elif row == "vae":
        c.model = dict(kind="vae", latent=2, encoder="net", decoder="net", likelihood="gaussian_learned")
        c.parts.update(objective=dict(kind="combined", k=3), share=dict(kind="sigmoid", steps=120))
    return c
