"""VAEs with a flow as the prior and one of the same kind, inverted, as the posterior, on dynamically binarized MNIST: test NLL in nats.

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once
    python -m experiments.table --config=configs/table_flow_priors.py --config.data.dir=DATA_DIR
    python -m experiments.table --config=configs/table_flow_priors.py:paper --config.data.dir=DATA_DIR

    z = F(e; x), e ~ N(m(x), s(x));   p(z) = N(G(z); 0, I) |det dG/dz|        F, G: the direction of a density, one pass each

Budget paper: the protocol of Durkan et al. 2019, read in their code (bayesiains/nsf: experiments/vae.py, nn/conv.py): 32 latents; F and G
are five times a random permutation, an LU layer and the row's layer, and a permutation and an LU layer at the end; networks of 128, 8 bins
on [-3, 3]; a residual convolutional encoder with 64 numbers for F, its mirror as decoder, no dropout; Adam 5e-4 with a cosine to 0, batch
256, 150,000 steps; beta rises from 0.5 to 1 over the first tenth; best of the validation ELBO. The published ± (0.42) are two standard
errors over the test images.

Ours differs: the rows' layers have MLPs and MADEs of two hidden layers of 128, where theirs are residual networks of two blocks with a gate
for the context; spline couplings leave the kept half as it is; affine scales are exp(2 tanh(s / 2)); every coupling moves the same half, as
a permutation stands before it; m and s come from the encoder's last layer and not from the 64 numbers; validation on train[50000:], all of
it.

Their second data set is left out: TFDS's emnist/letters (88,800 / 14,800 examples) is another split than the one their code loads.

Budget cpu: the same flows; encoder and decoder are MLPs of one hidden layer of 512, for which CPUs are fast: 7,800 steps of 0.016 seconds
(baseline), 0.03 (glow, maf), 0.05 (nsf_c) and 0.09 (nsf_ar) of one core whose float32 products run at 75 GFLOP/s; 3 to 17 minutes a cell
with its evaluation.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.base import affine, base, made, mlp, repeat, spline

TABLE = dict(
    title="Flow priors: NLL on the dynamically binarized MNIST test set",
    source="Durkan et al. 2019, arXiv 1906.04032, -log p(x) of its VAE table, quoted from notes on the paper (grade B)",
    number="nll",
    unit="nats",
    better="lower",
    seeds=1,
    together=False,
    note=(
        "the layers' networks are MLPs and MADEs of two hidden layers (there residual networks with a gate for the context); the published"
        " numbers are known from notes alone"
    ),
)
BUDGETS = {"cpu": "MLPs of 512 as encoder and decoder, 20 epochs; IWAE-100", "paper": "150,000 steps of 256; IWAE-1000"}
PUBLISHED = {"baseline": 81.31, "glow": 79.72, "nsf_c": 79.63, "maf": 79.95, "nsf_ar": 79.71}
PAIRS = (("glow", "baseline"), ("nsf_c", "glow"), ("maf", "baseline"), ("nsf_ar", "maf"))
COLUMNS = {"-ELBO": ("neg_elbo", 2), "KL": ("kl", 2), "parameters": ("cost.trained_parameters", 0)}
_LINES = {
    "baseline": "N(0, I) prior, Gaussian posterior",
    "glow": "affine couplings and LU layers as prior and posterior",
    "nsf_c": "spline couplings and LU layers as prior and posterior",
    "maf": "MAF prior, IAF posterior",
    "nsf_ar": "autoregressive splines as prior, their inverse as posterior",
}
ROWS = {"": "the row baseline"} | _LINES | {f"{row},{budget}": f"{_LINES[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "baseline").partition(",")
    paper = budget == "paper"
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", binarize="dynamic")
    c.data.batch = 256 if paper else 128
    epoch = 50_000 // c.data.batch
    steps = 150_000 if paper else 20 * epoch
    c.model = dict(kind="vae", latent=32, std="log_variance")
    c.parts.beta = dict(kind="linear", start=0.5, steps=steps // 10)
    c.optim.update(learning_rate=5e-4, schedule="cosine", ema=0.0)
    c.train.update(steps=steps, log_every=epoch // 2, eval_every=2 * epoch, checkpoint_every=2 * epoch)
    c.eval.update(k=1000 if paper else 100, chunk=50 if paper else 10, batch=200)
    if paper:
        c.parts.encoder = dict(kind="res_conv", channels=(16, 32, 64, 128))
        c.parts.decoder = dict(kind="res_deconv", channels=(128, 64, 32, 16))
    else:
        c.parts.encoder = c.parts.decoder = mlp(512)
    if row != "baseline":
        c.model.posterior_context = 64
        c.parts.update(flow("prior", row) | flow("posterior_inverse", row))
        c.parts.posterior = dict(kind="inverse", of="posterior_inverse")
    return c


def flow(name: str, row: str) -> dict[str, Any]:
    """The parts of F or G, listed from the data to the noise."""
    step, end = f"{name}_step", f"{name}_end"
    layer, net = f"{name}_layer", f"{name}_net"
    parts: dict[str, Any] = {
        name: dict(kind="chain", of=(f"{name}_steps", end)),
        f"{name}_steps": repeat(step, 5),
        step: dict(kind="chain", of=(f"{name}_shuffle", f"{name}_linear", layer)),
        end: dict(kind="chain", of=(f"{name}_shuffle", f"{name}_linear")),
        f"{name}_shuffle": dict(kind="permutation", order="random"),
        f"{name}_linear": dict(kind="lu_linear", start="identity"),
        net: made(128, 128) if row in ("maf", "nsf_ar") else mlp(128, 128),
    }
    if row == "glow":
        parts[layer] = affine(net, "alternating", False)
    elif row == "maf":
        parts[layer] = dict(kind="affine_autoregressive", made=net)
    else:
        coupling = spline(net, "alternating", False, bound=3.0)
        parts[layer] = coupling if row == "nsf_c" else dict(kind="spline_autoregressive", made=net, bound=3.0)
    return parts
