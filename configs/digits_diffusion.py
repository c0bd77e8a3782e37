"""Flow matching, score SDEs, EDM and consistency training on the 8x8 digits (1,797 images, splits 1297/200/300): a small U-Net.

    python -m experiments.train --config=configs/digits_diffusion.py --workdir=runs/digits_diffusion
    python -m experiments.sample --workdir=runs/digits_diffusion --config.sample.sampler=ddim --config.sample.steps=10
    python -m experiments.sample --workdir=runs/digits_diffusion --config.sample.edit=left --config.sample.sampler=ancestral
    python -m experiments.explore --workdir=runs/digits_diffusion --show=trajectories,round_trips,interpolation
    python -m experiments.train --config=configs/digits_classifier.py:noised --workdir=runs/digits_noised
    python -m experiments.train --config=configs/digits_diffusion.py:classifier_guided --config.model.classifier=runs/digits_noised \\
        --workdir=runs/digits_guided
    python -m experiments.sample --workdir=runs/digits_guided --label=3 --config.sample.classifier_scale=2

The row classifier_guided is score_vp, whose network sees no labels: its samples are of a class by the gradient of a classifier of noised
digits. Without --label, all classes in turn; with --config.sample.classifier_scale=0, those of no class, and the density (the guided field
has none). A run of score_vp gets a classifier by --config.init_from=RUN --config.train.steps=1 --config.optim.learning_rate=1e-9.

x + u, u ~ U(0,1), is scaled to [-1, 1]. The NLL is a bound: the probability-flow ODE's at t_min, of dequantised data, with one Hutchinson
probe a draw, by 20 steps of rk4 (60 steps changed 12 images by 0.001 bits/dim).
Expected (default row, seed 0, 300 test images, one draw each): 87.44 ± 0.65 nats, 1.971 bits/dim; 2,500 steps in 508 s and 94 s for the
likelihood on 2 CPU cores shared with other programs. The other rows were not trained to their end. Consistency training, Song and
Dhariwal 2024's, has no density: its samples, of one evaluation, are compared with the test images.
"""

from ml_collections import ConfigDict

from configs.base import base

MODELS = {
    "flow_matching": "flow matching on the linear path",
    "score_vp": "score SDE, variance preserving",
    "score_subvp": "score SDE, sub-variance preserving",
    "edm": "EDM: its preconditioning, weights, times and grid",
    "consistency_training": "improved consistency training: one evaluation a sample, no density",
}
GUIDED = "score SDE, samples of a class by the gradient of a classifier (needs --config.model.classifier)"
ROWS = {"": MODELS["flow_matching"]} | MODELS | {"classifier_guided": GUIDED}


def get_config(row: str = "") -> ConfigDict:
    name = "score_vp" if row == "classifier_guided" else row or "flow_matching"
    c = base()
    c.data.kind = "digits"
    c.data.batch = 64
    c.optim.update(clip=1.0, schedule="cosine")
    c.train.update(steps=2500)
    image_diffusion(c, name, 17, dict(kind="unet", channels=16, blocks=1))
    if row == "classifier_guided":
        c.data.context = "label"
        c.model.classifier = "configs/digits_classifier.py:noised"
        del c.parts["layer"]  # the classifier's
    if name != "consistency_training":
        c.eval.k = 1
        c.sample.update(trace="estimate", solver="rk4", solver_steps=20)
    return c


def image_diffusion(c: ConfigDict, name: str, levels: int, net: dict) -> None:
    """The model `name` of MODELS for images of `levels` grey values, in place."""
    c.model = dict(kind="diffusion")
    c.parts = ConfigDict(dict(net=net, layer=dict(kind="scale", shift=levels / 2, factor=levels / 2)))
    if name == "consistency_training":
        consistency_training(c)
        return
    if name == "edm":
        c.model.update(times="log_normal", precondition=True, t_min=0.002 / 80)
        for part in ("path", "predict", "weight"):
            c.parts[part] = dict(kind="edm")
        c.parts.embedding = dict(kind="fourier", scale=1.0)
        c.sample.update(grid="rho", steps=17)  # and Tweedie's formula: the 18 levels of noise and 35 evaluations of the paper
        return
    c.model.embedding = "sinusoidal"
    if name.startswith("score_"):
        c.model.update(path=name.removeprefix("score_"), predict="noise", t_min=1e-5)


def consistency_training(c: ConfigDict) -> None:
    """Improved consistency training in c.train.steps steps: 11 to 1,281 points on EDM's path and grid, in place."""
    c.model = dict(kind="flow_map", target="pair", form="edm", precondition=True, t_min=0.002 / 80)
    c.parts.update(
        path=dict(kind="edm"),
        embedding=dict(kind="fourier", scale=0.02),
        times=dict(kind="log_normal", mean=-1.1, std=2.0),
        intervals=dict(kind="points", count="count", grid="rho"),
        count=dict(kind="doubling", steps=c.train.steps),
        loss=dict(kind="pseudo_huber"),
    )
    c.eval.update(measures=("sample_quality",), settings=dict(sample_quality=dict(extractor="none")))
