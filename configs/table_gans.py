"""GANs on 8 and 25 Gaussians: modes covered, samples on a mode and energy distance of fifteen objectives. Failures are results here.

    python -m experiments.table --config=configs/table_gans.py
    python -m experiments.table --config=configs/table_gans.py --rows=8gaussians_gan_wgan_gp,25gaussians_gan_wgan_gp

Rows are those of configs/densities.py. A cell is three seeds, trained as one program, at one network size, batch size and learning rate
for all objectives; what each needs beside (turns, clipping, kernels, codes) is in that file, and was not tuned for each density. Evaluated
are the parameters of the last step. A mode is covered if one of 2,500 samples is within three standard deviations of it; data have 0.989 of
their points there. An objective whose loss is no longer finite stops, and the table says so.

The papers' networks, budgets and data are others, and so are those of published counts of modes.
"""

from ml_collections import ConfigDict

from configs import densities

DATA = ("8gaussians", "25gaussians")

TABLE = dict(
    title="GAN objectives on mixtures of 8 and 25 Gaussians: modes covered",
    source="no numbers are published on these data",
    number="mode_coverage.covered",
    unit="modes with at least one of 2,500 samples",
    better="higher",
    seeds=3,
    together=True,
    digits=2,
)
BUDGETS = {
    "cpu": "6,000 training steps of 64 points (turns of the critic included), the three seeds in one program",
    "paper": "ten times as many",
}
PUBLISHED = {f"{data}_gan_{name}": None for data in DATA for name in densities.GANS}
COLUMNS = {
    "on a mode": ("mode_coverage.near", 3),
    "smallest mode": ("mode_coverage.smallest", 4),
    "energy distance": ("sample_quality.energy", 4),
    "its floor": ("sample_quality.energy_floor", 4),
}
ROWS = {"": "the row 8gaussians_gan_wgan_gp"} | {row: densities.ROWS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{densities.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "8gaussians_gan_wgan_gp").partition(",")
    c = densities.get_config(row)
    if budget == "paper":
        c.train.steps *= 10
    return c
