"""Classifier-free guidance of the digits' latent diffusion: how often samples are of the class that was asked for, and how far they are.

    python -m experiments.table --config=configs/table_guidance.py

One run of configs/digits_latent.py (and the autoencoder that it needs), sampled at several guidance scales. Guidance 1 is none. The figure
has the agreement against the energy distance to the test images.
"""

from ml_collections import ConfigDict

from configs import digits_latent

TABLE = dict(
    title="Guidance of a latent diffusion on the digits",
    source="no numbers are published on these data",
    number="class_agreement.agreement",
    unit="share of samples of the class that was asked for",
    better="higher",
    seeds=3,
    together=False,
    digits=3,
    against="energy distance",
)
BUDGETS = {"cpu": "that of configs/digits_latent.py", "paper": "ten times as many steps"}
SCALES = ("1.5", "2", "3", "5")
AFTER = {"diffusion": ("autoencoder", "model.frozen")}
EVALUATE = {f"diffusion_{scale}": ("diffusion", {"sample.guidance": float(scale)}) for scale in SCALES} | {
    "diffusion_2_interval": ("diffusion", {"sample.guidance": 2.0, "sample.guidance_interval": (0.2, 0.8)}),
}
PUBLISHED = dict.fromkeys(("diffusion", *EVALUATE))
CURVES = {row: ("digits", "all times") for row in ("diffusion", *(f"diffusion_{scale}" for scale in SCALES))}
COLUMNS = {
    "of test images": ("class_agreement.held_out", 3),
    "energy distance": ("sample_quality.energy", 4),
    "its floor": ("sample_quality.energy_floor", 4),
    "precision": ("sample_quality.precision", 3),
    "recall": ("sample_quality.recall", 3),
}
LINES = {"autoencoder": "stage 1", "diffusion": "guidance 1"}
ROWS = {"": "the row diffusion"} | LINES | {f"{row},{budget}": f"{LINES[row]}; {budget}" for row in LINES for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    name, _, budget = (row or "diffusion").partition(",")
    c = digits_latent.get_config(name)
    if name == "diffusion":
        c.model.frozen = "configs/table_guidance.py:autoencoder"
        c.eval.measures = ("class_agreement", "sample_quality")
        c.eval.settings = dict(sample_quality=dict(names=("energy", "neighbours"), extractor="none"))
    if budget == "paper":
        c.train.steps *= 10
    return c
