"""GANs on the 8x8 digits: precision, recall, density and coverage of as many samples as there are test images (300).

    python -m experiments.table --config=configs/table_gans_digits.py

Rows are those of configs/digits_gan.py. Balls of 5 nearest neighbours in the space of the pixels. The floors are those of 300 training
images in place of the samples: a perfect model scores the floor. The papers' data and networks are others.
"""

from ml_collections import ConfigDict

from configs import digits_gan

TABLE = dict(
    title="GAN objectives on the digits: precision, recall, density and coverage",
    source="no numbers are published on these data",
    number="sample_quality.coverage",
    unit="share of test images whose ball of 5 neighbours has a sample",
    better="higher",
    seeds=3,
    together=True,
    digits=3,
)
BUDGETS = {"cpu": "6,000 training steps of 64 images (turns of the critic included)", "paper": "ten times as many"}
PUBLISHED = {row: None for row in digits_gan.GANS}
COLUMNS = {
    "its floor": ("sample_quality.coverage_floor", 3),
    "precision": ("sample_quality.precision", 3),
    "recall": ("sample_quality.recall", 3),
    "density": ("sample_quality.density", 3),
    "energy distance": ("sample_quality.energy", 4),
    "floor of the energy distance": ("sample_quality.energy_floor", 4),
}
ROWS = digits_gan.ROWS | {f"{row},{budget}": f"{digits_gan.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = row.partition(",")
    c = digits_gan.get_config(row)
    if budget == "paper":
        c.train.steps *= 10
    return c
