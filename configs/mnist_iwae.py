"""The IWAE paper on MNIST (Burda, Grosse, Salakhutdinov 2016): VAE and IWAE with one and two stochastic layers, 1, 5 and 50 draws.

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once
    python -m experiments.train --config=configs/mnist_iwae.py:iwae_1_50 --config.data.dir=DATA_DIR --workdir=runs/iwae_1_50
    python -m experiments.train --config=configs/mnist_iwae.py:iwae_1_50,paper --config.data.dir=DATA_DIR --dry_run

Rows are OBJECTIVE_LAYERS_DRAWS or that and ",paper". The paper's protocol: 60,000 images for training and 10,000 to test, binarized
anew in every pass; one layer: 50 latents, two tanh layers of 200 each way; two layers: 100 and 50 latents, two tanh layers of 200 and of
100; Adam with eps 1e-4, batches of 20; stages of 1, 3, 9, ... passes at rates from 1e-3 down to 1e-4, no validation set.

    cpu     13 passes, 3 stages; the test likelihood by 100 draws (the budget of a row's name alone); softplus standard deviations
    paper   3,280 passes, 8 stages; 5,000 draws. The authors' code (yburda/iwae) sums gradients over the batch and has exponentials as
            standard deviations: so eps is 1e-4 / 20 for our means, and networks give log-variances. The rest: table_iwae_1.py's note.

Expected at the cpu budget (seed 0; NLL, and how many of 50 units have a variance of the posterior mean above 0.01 and above 0.1):
vae_1_1 104.56, 38, 17; vae_1_5 100.96, 16, 16; vae_1_50 99.91, 18, 16; iwae_1_5 100.80, 44, 20; iwae_1_50 99.39, 49, 24; vae_2_1 118.72,
its upper layer not used yet. 1 to 20 minutes of training on 2 shared CPU cores. IWAE's units rise with the draws, the VAE's do not.

Objective swap (its Table 2): a run of vae_1_1 continues as vae_then_iwae, one of iwae_1_50 as iwae_then_vae, 9 epochs (paper: 2,187)
at 1e-4:

    python -m experiments.train --config=configs/mnist_iwae.py:vae_then_iwae --config.data.dir=DATA_DIR --config.init_from=runs/vae_1_1

Published NLL (L_5000) and active units for 1, 5, 50 draws: VAE, 1 layer 86.76, 86.47, 86.35 (19, 20, 20); IWAE, 1 layer 86.76, 85.54, 84.78
(19, 22, 25); VAE, 2 layers 85.33, 85.01, 84.78 (16+5, 17+5, 17+5); IWAE, 2 layers 85.33, 83.89, 82.90 (16+5, 21+5, 26+7). Swapped: VAE
then IWAE 84.88 (22), IWAE then VAE 86.02 (23).
"""

from ml_collections import ConfigDict

from configs.base import base, mlp
from configs.vaes import stack

OBJECTIVES = {"vae": "elbo", "iwae": "iwae"}
# Sizes of the latents by the number of stochastic layers; hidden units of the networks on either side of each layer.
LATENTS = {1: (50,), 2: (100, 50)}
HIDDEN = (200, 100)
# Stages, passes of a second stage, draws of the test likelihood.
BUDGETS = {"cpu": (3, 9, 100), "paper": (8, 2187, 5000)}

# Row: objective, stochastic layers, draws.
TABLE = {f"{name}_{layers}_{k}": (name, layers, k) for name in OBJECTIVES for layers in LATENTS for k in (1, 5, 50)}
SWAPS = {"vae_then_iwae": ("iwae", 1, 50), "iwae_then_vae": ("vae", 1, 1)}
DEFAULT = "iwae_1_50"


def _line(row: str) -> str:
    name, layers, k = (TABLE | SWAPS)[row]
    swap = "objective swap, second stage (needs --config.init_from): " if row in SWAPS else ""
    return f"{swap}{name.upper()}, {layers} stochastic layer{'s' * (layers > 1)}, {k} draw{'s' * (k > 1)}"


ROWS = {"": f"the row {DEFAULT}"} | {row: _line(row) for row in TABLE | SWAPS}
ROWS |= {f"{row},paper": f"{_line(row)}; the paper's budget" for row in TABLE | SWAPS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or DEFAULT).partition(",")
    name, layers, draws = (TABLE | SWAPS)[row]
    stages, passes, k = BUDGETS[budget or "cpu"]
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train", test="test", binarize="dynamic", batch=20)
    c.model = dict(kind="layered", latents=LATENTS[layers])
    c.parts.objective = dict(kind=OBJECTIVES[name], k=draws)
    stack(c, *(mlp(size, size, activation="tanh") for size in HIDDEN[:layers]))
    epoch = 60_000 // c.data.batch
    c.optim.update(learning_rate=1e-3, eps=1e-4, ema=0.0, schedule="stages", decay_every=epoch, decay_rate=0.1 ** (1 / (stages - 1)))
    if budget == "paper":
        c.model.std = "log_variance"
        c.optim.eps = 1e-4 / c.data.batch
    steps = epoch * (3**stages - 1) // 2
    if row in SWAPS:
        c.optim.update(learning_rate=1e-4, schedule="constant")
        steps = epoch * passes
    c.train.update(steps=steps, log_every=epoch // 4, eval_every=epoch, checkpoint_every=epoch)
    c.eval.update(k=k, chunk=50, batch=100)
    return c
