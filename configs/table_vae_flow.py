"""VAE against flow on the same data: likelihood, sample quality, stability over seeds, seconds per epoch and memory (8x8 digits, MNIST).

    python -m experiments.table --config=configs/table_vae_flow.py --config.data.dir=DATA_DIR
    python -m experiments.table --config=configs/table_vae_flow.py --rows=digits_vae,digits_realnvp

Rows are DATA_MODEL. All are densities of the grey values themselves (17 on the digits, 256 on MNIST), so bits/dim compare: the VAEs'
likelihood is a discretised logistic (NLL by IWAE), the flows dequantise uniformly (IWAE over the noise: a bound that k tightens). On one
data set all rows see the same splits, batches and number of passes at the most: the validation split chooses the parameters and stops;
the digits' rows are those of digits_vae.py and digits_flow.py. The Frechet distance is of a classifier's features, its floor that of
training data (vaeflow/evaluation/measures/quality.py); VAEs' samples are means of p(x|z). Seconds per epoch are training alone, memory is
what XLA reserves for one training step. Expected of budget cpu, bits/dim: digits (three seeds) Flow++ 1.80, VAE with MAF prior 1.93,
VAE 2.00, RealNVP 2.10, MAF 2.14, RQ-NSF 2.16; MNIST (two seeds) VAE 1.51, with MAF prior 1.50, RealNVP 2.08, MAF 2.18.
"""

from ml_collections import ConfigDict

from configs import digits_flow, digits_vae
from configs.base import affine, base, made, mlp, repeat
from configs.vaes import prior

TABLE = dict(
    title="VAE against flow: bits per dimension on the test set",
    source="no paper: the comparison that the problem set asks for",
    number="bits_per_dim",
    unit="bits",
    better="lower",
    seeds=3,
    together=False,
    digits=3,
    groups=("digits_", "mnist_"),
)
BUDGETS = {
    "cpu": "digits: 3,000 steps of 64; MNIST: 20 epochs, batch 128: at most 10 minutes of one CPU core a cell",
    "paper": "ten times the passes at the most, MNIST's networks twice as wide",
}
DIGITS = {
    "vae": (digits_vae, "", "VAE"),
    "vae_maf": (digits_vae, "maf_prior", "VAE, MAF prior"),
    "vae_conv": (digits_vae, "conv", "VAE, convolutional"),
    "realnvp": (digits_flow, "", "RealNVP: 8 affine couplings"),
    "maf": (digits_flow, "maf", "MAF: 5 layers"),
    "nsf": (digits_flow, "spline", "RQ-NSF: 4 spline couplings"),
    "flowpp": (digits_flow, "flowpp", "Flow++ on the images"),
}
MNIST = {
    "vae": "VAE, 32 latents",
    "vae_maf": "VAE, MAF prior",
    "realnvp": "RealNVP: 8 affine couplings of the pixels",
    "maf": "MAF: 5 layers over the pixels",
}
LINES = {f"digits_{name}": line for name, (*_, line) in DIGITS.items()} | {f"mnist_{name}": line for name, line in MNIST.items()}
PUBLISHED = dict.fromkeys(LINES)
CHECKS = {"sample_quality": {"names": ("frechet",)}}
COLUMNS = {
    "Frechet distance": ("sample_quality.frechet", 2),
    "its floor": ("sample_quality.frechet_floor", 2),
    "seconds/epoch": ("epoch_seconds", 2),
    "step [MB]": ("cost.step_mb", 1),
    "parameters": ("cost.trained_parameters", 0),
}
ROWS = {"": "the row digits_vae"} | LINES | {f"{row},{budget}": f"{LINES[row]}; {budget}" for row in LINES for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "digits_vae").partition(",")
    data, _, name = row.partition("_")
    if data == "digits":
        module, own, _ = DIGITS[name]
        c = module.get_config(own)
        c.train.update(steps=3000, eval_every=100, checkpoint_every=500, patience=8)
        c.eval.update(k=100, chunk=20)
    else:
        c = mnist(name, 512 if budget == "paper" else 256)
    if budget == "paper":
        c.train.steps *= 10
    return c


def mnist(name: str, width: int) -> ConfigDict:
    """A row on MNIST; the VAE's layers have 2 x width units, so that parameters are of one order."""
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", batch=128)
    epoch = 50_000 // c.data.batch
    c.optim.update(learning_rate=1e-3, clip=5.0, schedule="cosine")
    c.train.update(steps=20 * epoch, log_every=epoch // 2, eval_every=epoch, checkpoint_every=5 * epoch, patience=5)
    c.eval.update(k=20, chunk=5, batch=250)
    if name.startswith("vae"):
        c.model = dict(kind="vae", latent=32, likelihood="discretized_logistic")
        c.parts = dict(encoder=mlp(2 * width, 2 * width), decoder=mlp(2 * width, 2 * width))
        if name == "vae_maf":
            prior(c, "maf", width=128)
        return c
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("grey", "logit", "steps")),
        grey=dict(kind="scale", factor=256.0),
        logit=dict(kind="logit"),
        norm=dict(kind="actnorm"),
    )
    if name == "maf":
        c.parts.steps, c.parts.step = repeat("step", 5), dict(kind="chain", of=("norm", "layer", "order"))
        c.parts.layer = dict(kind="affine_autoregressive", made="made")
        c.parts.made, c.parts.order = made(width, width), dict(kind="permutation")
    else:
        c.parts.steps, c.parts.step = repeat("step", 4), dict(kind="chain", of=("norm", "coupling_a", "coupling_b"))
        c.parts.coupling_a, c.parts.coupling_b = (affine("net", "alternating", flip) for flip in (False, True))
        c.parts.net = mlp(width, width)
    return c
