"""TarFlow (Zhai et al. 2024) on the 8x8 digits: autoregressive transformers over 2x2 patches, in alternating orders.

    python -m experiments.train --config=configs/digits_tarflow.py --workdir=runs/digits_tarflow
    python -m experiments.train --config=configs/digits_tarflow.py:noised --workdir=runs/digits_tarflow_noised
    python -m experiments.sample --workdir=runs/digits_tarflow_noised --label=3 --config.sample.guidance=2
    python -m benchmarks.jacobi --workdir=runs/digits_tarflow

The default row is for the likelihood: uniform dequantisation. The row noised is for samples: Gaussian noise of 0.05 of half the range, as
in the paper, samples denoised by the score, and a class that is hidden in one step of ten.
"""

from ml_collections import ConfigDict

from configs.base import base, repeat

ROWS = {
    "": "TarFlow: 8 layers of 2 blocks of width 64, uniform dequantisation",
    "conditional": "the same, conditioned on the label: p(x|label)",
    "noised": "conditioned on the label, Gaussian noise, samples denoised and guided",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="digits", batch=64)
    c.model = dict(kind="flow", layer="flow", flatten=False)
    patches = dict(kind="patch_autoregressive", width=64, depth=2)
    c.parts = dict(
        flow=dict(kind="chain", of=("grey", "squeeze", "steps")),
        grey=dict(kind="scale", shift=8.5, factor=8.5),
        squeeze=dict(kind="squeeze"),
        steps=repeat("step", 4),
        step=dict(kind="chain", of=("patches", "patches_flipped")),
        patches=patches,
        patches_flipped=patches | dict(flip=True),
    )
    c.optim.update(learning_rate=1e-3, clip=1.0, schedule="cosine")
    c.train.update(steps=3000, eval_every=100, checkpoint_every=500, patience=8)
    c.eval.update(k=100, chunk=20)
    if row:
        c.data.context = "label"
    if row == "noised":
        c.model.update(noise=0.05 * 8.5, label_drop=0.1)
    return c
