"""Flows on the 8x8 digits as vectors of 64: uniform dequantisation, logit, couplings; bits/dim.

    python -m experiments.train --config=configs/digits_flow.py --workdir=runs/digits_flow

x + u, u ~ U(0,1), divided by 17, then a logit, are Layers at the data end, so the density is that of the 17 grey values.
1,297 training images are few: early stopping by the validation split matters here.
Expected (default row, seed 0, 300 test images): NLL (IWAE-100 over dequantisation) 93.34 ± 0.86 nats, 2.104 bits/dim, stopped
early at step 1,200; one to three minutes on 2 shared CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, made, mintnet, mixture, mlp, repeat, spline

ROWS = {
    "": "RealNVP: 8 affine couplings, ActNorm",
    "nice": "NICE: 4 additive couplings and the scaling layer, logistic base",
    "spline": "RQ-NSF: 4 rational-quadratic spline couplings with LU linear layers",
    "batch_norm": "RealNVP with batch normalisation instead of ActNorm",
    "checkerboard": "RealNVP on the images themselves: checkerboard masks, convolutional conditioners",
    "variational": "RealNVP with variational dequantisation (Flow++): the noise is a flow that sees the image",
    "flowpp": "Flow++ on the images themselves: mixture-of-logistics couplings at 8x8 and 4x4, variational dequantisation",
    "maf": "MAF: 5 affine autoregressive layers, LU linear layers",
    "mintnet": "MintNet on the images themselves: 4 masked convolutional layers at 8x8, 4 at 4x4, both raster orders",
    "jet": "Jet on the images themselves: 2x2 patches, 8 channel couplings by transformers, LU linear layers",
    "ffjord": "FFJORD: a continuous flow, 8 steps of rk4, trained by one Hutchinson probe",
    "conditional": "RealNVP conditioned on the label: p(x|label)",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.kind = "digits"
    c.data.batch = 64
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("grey", "logit", "steps")),
        grey=dict(kind="scale", factor=17.0),
        logit=dict(kind="logit"),
        steps=repeat("step", 4),
        step=dict(kind="chain", of=("norm", "coupling_a", "coupling_b")),
        norm=dict(kind="actnorm"),
        net=mlp(128, 128),
    )
    for name, flip in (("coupling_a", False), ("coupling_b", True)):
        c.parts[name] = affine("net", "alternating", flip)
    c.optim.update(learning_rate=1e-3, clip=5.0, schedule="cosine")
    c.train.update(steps=3000, eval_every=100, checkpoint_every=500, patience=8)
    c.eval.update(k=100, chunk=20)
    if row == "nice":
        c.model.base = "logistic"
        c.parts.flow.of = ("grey", "logit", "steps", "scaling")
        c.parts.scaling = dict(kind="nice_scaling")
        c.parts.steps.n = 2
        c.parts.step.of = ("coupling_a", "coupling_b")
        for name in ("coupling_a", "coupling_b"):
            c.parts[name] = dict(kind="additive_coupling", net="net", mask="alternating", flip=name == "coupling_b")
    elif row == "ffjord":
        c.parts.flow.of = ("grey", "logit", "norm", "cnf")
        c.parts.cnf = dict(kind="cnf", net="net", steps=8, trace="hutchinson", kinetic=0.01, jacobian=0.01)
        c.parts.net = dict(kind="concat_squash", hidden=(256, 256), activation="tanh")
        c.eval.k = 10  # draws of the noise; the trace is exact, 64 products an evaluation
    elif row == "spline":
        c.parts.steps.n = 2
        c.parts.step.of = ("norm", "linear", "coupling_a", "coupling_b")
        c.parts.linear = dict(kind="lu_linear")
        for name in ("coupling_a", "coupling_b"):
            c.parts[name] = spline("net", "half", name == "coupling_b")
    elif row == "batch_norm":
        c.parts.norm = dict(kind="batch_norm", momentum=0.9)
    elif row == "checkerboard":
        c.model.flatten = False
        c.parts.net = dict(kind="convnet", channels=(32, 32))
        c.parts.coupling_a.mask = c.parts.coupling_b.mask = "checkerboard"
    elif row == "variational":
        c.model.update(dequantize="variational", dequantizer="noise")
        c.parts.noise = repeat("noise_step", 2)
        c.parts.noise_step = dict(kind="chain", of=("norm", "noise_a", "noise_b"))
        c.parts.noise_net = mlp(64)
        for name, flip in (("noise_a", False), ("noise_b", True)):
            c.parts[name] = affine("noise_net", "alternating", flip)
    elif row == "flowpp":
        c.model.update(flatten=False, dequantize="variational", dequantizer="noise")
        c.parts.flow.of = ("grey", "logit", "pixels", "squeeze", "channels")
        c.parts.net = dict(kind="convnet", channels=(32, 32))
        c.parts.squeeze = dict(kind="squeeze")
        for stack, mask in (("pixels", "checkerboard"), ("channels", "channel")):
            c.parts[stack] = repeat(f"{stack}_step", 2)
            c.parts[f"{stack}_step"] = dict(kind="chain", of=("norm", f"{stack}_a", f"{stack}_b"))
            c.parts[f"{stack}_a"], c.parts[f"{stack}_b"] = (mixture("net", mask, flip) for flip in (False, True))
        c.parts.noise = dict(kind="chain", of=("norm", "noise_a", "noise_b"))
        c.parts.noise_a, c.parts.noise_b = (affine("net", "checkerboard", flip) for flip in (False, True))
    elif row == "maf":
        c.parts.steps.n = 5
        c.parts.step.of = ("norm", "linear", "autoregressive")
        c.parts.linear = dict(kind="lu_linear")
        c.parts.made = made(256, 256)
        c.parts.autoregressive = dict(kind="affine_autoregressive", made="made")
    elif row == "mintnet":
        c.model.flatten = False
        c.parts.flow.of = ("grey", "logit", "steps", "squeeze", "steps")
        c.parts.steps.n = 2
        c.parts.step.of = ("norm", "mint_a", "mint_b")
        c.parts.squeeze = dict(kind="squeeze")
        c.parts.mint_a, c.parts.mint_b = (mintnet(8, flip) for flip in (False, True))
    elif row == "jet":
        c.model.flatten = False
        c.parts.flow.of = ("grey", "logit", "squeeze", "steps")
        c.parts.step.of = ("norm", "linear", "coupling_a", "coupling_b")
        c.parts.squeeze = dict(kind="squeeze")
        c.parts.linear = dict(kind="lu_linear")
        c.parts.net = dict(kind="transformer", width=32, depth=1)
        c.parts.coupling_a.mask = c.parts.coupling_b.mask = "channel"
    elif row == "conditional":
        c.data.context = "label"
    return c
