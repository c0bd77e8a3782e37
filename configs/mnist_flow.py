"""Flows on MNIST images: multi-scale RealNVP and Glow, Flow++, MintNet, Jet; bits/dim.

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once
    python -m experiments.train --config=configs/mnist_flow.py:glow --config.data.dir=DATA_DIR --workdir=runs/mnist_glow
    python -m experiments.train --config=configs/mnist_flow.py:glow,paper --config.data.dir=DATA_DIR --dry_run

Rows are FLOW or FLOW,BUDGET. The budget `cpu` (that of FLOW alone) is what two CPU cores train in about ten minutes, one to three passes
over the data: far below what these flows reach (published, with uniform dequantisation: RealNVP 1.06, Glow 1.05 as quoted in FFJORD's
Table 2; MintNet 0.98, which could not be checked). `paper` is for accelerators, hours to days, and was not run: for RealNVP and Glow
about the sizes of their papers for images of 32x32 (cut twice, as 28x28 allows), for MintNet those of its authors' configuration (20
pairs, 45 copies, batches of 32, 600 passes; theirs has no ActNorm), for Flow++ and Jet larger sizes of our own choice. Optimiser,
clipping, moving average and the number of steps are ours; cifar10_flow.py says where else the two differ. 256 grey values, uniform
dequantisation (variational for Flow++), scale and logit at the data end, so the density is that of the grey values; best by
train[50000:]. An image of 28x28x1 is cut at 14x14 and at 7x7 (bijectors/split.py): the whole flow is one bijector between the image and a
vector of 784.
Expected (budget cpu, seed 0, 10,000 test images, IWAE-5, at most 5 effective draws, so upper bounds): RealNVP 1.684,
Glow 1.605, MintNet 1.866 bits/dim, each in at most 18 minutes of one busy CPU core (results/mnist_flows.md); Flow++ and Jet were not
run to the end here.

To add a flow: a function of the event's shape and of sizes that returns its parts, the outermost of them `body`; a line in FLOWS and
one for each budget in BUDGETS.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, mintnet, mixture, repeat


def realnvp(event: tuple[int, ...], scales: int, width: int, blocks: int) -> dict:
    """RealNVP's parts (Dinh et al. 2016, sections 3.5-4.1): at each scale three couplings with alternating checkerboard masks, squeeze,
    three with alternating channel masks, half of the channels leave; four checkerboard couplings at last. Batch normalisation
    follows every coupling (in MAF's form, see batch_norm.py; none inside the networks). The networks' width doubles with every scale."""
    parts = cut(event, scales, (lambda i: three(f"pixels_{i}"), lambda i: three(f"channels_{i}")))
    for i in range(scales + 1):
        parts[f"net_{i}"] = dict(kind="resnet", width=width * 2**i, blocks=blocks)
        for name, flip in (("a", False), ("b", True)):
            parts[f"pixels_{i}_{name}"] = affine(f"net_{i}", "checkerboard", flip)
            if i < scales:
                parts[f"channels_{i}_{name}"] = affine(f"net_{i + 1}", "channel", flip)
    parts["norm"] = dict(kind="batch_norm")
    parts[f"scale_{scales}"] = repeat("last", 2)
    parts["last"] = dict(kind="chain", of=(f"pixels_{scales}_a", "norm", f"pixels_{scales}_b", "norm"))
    return parts


def three(name: str) -> tuple[str, ...]:
    """Three couplings, the masks in turn."""
    return f"{name}_a", "norm", f"{name}_b", "norm", f"{name}_a", "norm"


def glow(event: tuple[int, ...], scales: int, width: int, steps: int, memory: str = "store") -> dict:
    """Glow's parts (Kingma and Dhariwal 2018): at each scale squeeze, `steps` times (ActNorm, 1x1 convolution, channel coupling), half
    of the channels leave under a learned prior given the others; the last scale keeps them all."""
    parts = cut(event, scales - 1, (lambda i: (), lambda i: (f"steps_{i}",)), prior="prior_net")
    for i in range(scales):
        parts[f"steps_{i}"] = repeat("step", steps, memory)
    parts[f"scale_{scales - 1}"] = dict(kind="chain", of=("squeeze", f"steps_{scales - 1}"))
    parts["squeeze"] = dict(kind="squeeze")
    parts["step"] = dict(kind="chain", of=("norm", "linear", "coupling"))
    parts["norm"] = dict(kind="actnorm")
    parts["linear"] = dict(kind="lu_linear")
    parts["coupling"] = affine("net", "channel", False)
    parts["net"] = dict(kind="glow_net", channels=(width, width))
    parts["prior_net"] = dict(kind="convnet", channels=())
    return parts


def cut(event: tuple[int, ...], cuts: int, layers: tuple, prior: str = "") -> dict:
    """The parts body, scale_0, split_0, scale_1, ...: at scale i layers[0](i), squeeze, layers[1](i), then half of the channels leave
    and the rest is scale_(i + 1); scale_(cuts) is the caller's. `prior`: the net of what leaves."""
    height, width, channels = event
    parts: dict = dict(body=dict(kind="chain", of=("scale_0",)))
    for i in range(cuts):
        height, width, channels = height // 2, width // 2, channels * 4
        parts[f"scale_{i}"] = dict(kind="chain", of=(*layers[0](i), "squeeze", *layers[1](i), f"split_{i}"))
        parts[f"split_{i}"] = dict(kind="split", event=(height, width, channels), inner=f"scale_{i + 1}", net=prior)
        parts["squeeze"] = dict(kind="squeeze")
        channels //= 2
    return parts


def flowpp(event: tuple[int, ...], width: int, layers: int, steps: int) -> dict:
    """Flow++'s parts (Ho et al. 2019), its networks without attention: `steps` pairs of mixture-of-logistics couplings with checkerboard
    masks, squeeze, as many with channel masks; the dequantiser `noise` is a pair of couplings that see the image."""
    parts: dict = dict(body=dict(kind="chain", of=("pixels", "squeeze", "channels")), squeeze=dict(kind="squeeze"))
    parts["net"] = dict(kind="convnet", channels=(width,) * layers)
    parts["norm"] = dict(kind="actnorm")
    for stack, mask in (("pixels", "checkerboard"), ("channels", "channel")):
        parts[stack] = repeat(f"{stack}_step", steps)
        parts[f"{stack}_step"] = dict(kind="chain", of=("norm", f"{stack}_a", f"{stack}_b"))
        parts[f"{stack}_a"], parts[f"{stack}_b"] = (mixture("net", mask, flip) for flip in (False, True))
    parts["noise"] = dict(kind="chain", of=("norm", "noise_a", "noise_b"))
    parts["noise_a"], parts["noise_b"] = (affine("net", "checkerboard", flip) for flip in (False, True))
    return parts


def mint(event: tuple[int, ...], copies: tuple[int, ...], layers: tuple[int, ...]) -> dict:
    """MintNet's parts (Song, Meng and Ermon 2019): at scale i layers[i] pairs of masked convolutional layers, one of either raster
    order, each pair after ActNorm; then squeeze. copies[i]: the hidden channels for one of the image's. Nothing leaves early."""
    names = [name for i in range(len(copies)) for name in ("squeeze", f"scale_{i}")][1:]
    parts = dict(body=dict(kind="chain", of=tuple(names)), squeeze=dict(kind="squeeze"), norm=dict(kind="actnorm"))
    for i, (n, pairs) in enumerate(zip(copies, layers, strict=True)):
        parts[f"scale_{i}"] = repeat(f"pair_{i}", pairs)
        parts[f"pair_{i}"] = dict(kind="chain", of=("norm", f"mint_{i}_a", f"mint_{i}_b"))
        parts[f"mint_{i}_a"], parts[f"mint_{i}_b"] = mintnet(n, False), mintnet(n, True)
    return parts


def jet(event: tuple[int, ...], patch: int, width: int, depth: int, heads: int, steps: int) -> dict:
    """Jet's parts (Kolesnikov et al. 2024): an image of patches, then `steps` times ActNorm, a linear layer over a patch's numbers
    and a pair of channel couplings whose networks are transformers."""
    parts: dict = dict(body=dict(kind="chain", of=("patches", "steps")), patches=dict(kind="squeeze", factor=patch))
    parts["steps"] = repeat("step", steps)
    parts["step"] = dict(kind="chain", of=("norm", "linear", "coupling_a", "coupling_b"))
    parts["norm"], parts["linear"] = dict(kind="actnorm"), dict(kind="lu_linear")
    parts["coupling_a"], parts["coupling_b"] = affine("net", "channel", False), affine("net", "channel", True)
    parts["net"] = dict(kind="transformer", width=width, depth=depth, heads=heads)
    return parts


FLOWS = {
    "realnvp": (realnvp, "RealNVP: two scales of checkerboard and channel couplings, residual networks, batch normalisation"),
    "glow": (glow, "Glow: two scales of ActNorm, 1x1 convolution and channel coupling, learned split priors"),
    "flowpp": (flowpp, "Flow++: mixture-of-logistics couplings, variational dequantisation"),
    "mintnet": (mint, "MintNet: three scales of masked convolutional layers, inverted by a fixed point"),
    "jet": (jet, "Jet: 4x4 patches, channel couplings by transformers"),
}
BUDGETS = {  # sizes of the flow; then of training
    ("realnvp", "cpu"): (dict(scales=2, width=8, blocks=1), dict(batch=64, steps=800)),
    ("realnvp", "paper"): (dict(scales=2, width=32, blocks=4), dict(batch=64, steps=200_000)),
    ("glow", "cpu"): (dict(scales=2, width=64, steps=8), dict(batch=64, steps=2000)),
    ("glow", "paper"): (dict(scales=2, width=512, steps=32, memory="invert"), dict(batch=512, steps=100_000)),
    ("flowpp", "cpu"): (dict(width=16, layers=2, steps=1), dict(batch=64, steps=1200)),
    ("flowpp", "paper"): (dict(width=96, layers=10, steps=4), dict(batch=64, steps=200_000)),
    ("mintnet", "cpu"): (dict(copies=(16, 8, 4), layers=(2, 2, 2)), dict(batch=64, steps=800)),
    ("mintnet", "paper"): (dict(copies=(45, 45, 45), layers=(6, 6, 8)), dict(batch=32, steps=937_500)),
    ("jet", "cpu"): (dict(patch=4, width=64, depth=2, heads=4, steps=4), dict(batch=64, steps=1000)),
    ("jet", "paper"): (dict(patch=4, width=512, depth=5, heads=8, steps=16), dict(batch=256, steps=100_000)),
}
ROWS = {"": f"{FLOWS['realnvp'][1]} (cpu)"} | {
    f"{name}{suffix}": f"{line} ({suffix.strip(',') or 'cpu'})" for name, (_, line) in FLOWS.items() for suffix in ("", ",cpu", ",paper")
}


def get_config(row: str = "") -> ConfigDict:
    name, _, budget = (row or "realnvp").partition(",")
    sizes, training = BUDGETS[name, budget or "cpu"]
    c = base()
    c.data.update(kind="tfds", name="mnist", train="train[:50000]", val="train[50000:]", test="test", batch=training["batch"])
    c.model = dict(kind="flow", layer="flow", flatten=False)
    c.parts = ConfigDict(
        dict(
            flow=dict(kind="chain", of=("grey", "logit", "body")),
            grey=dict(kind="scale", factor=256.0),
            logit=dict(kind="logit"),
        )
        | FLOWS[name][0]((28, 28, 1), **sizes)
    )
    if name == "flowpp":
        c.model.update(dequantize="variational", dequantizer="noise")
    schedule(c, name, budget or "cpu", training["steps"])
    return c


def schedule(c: ConfigDict, name: str, budget: str, steps: int) -> None:
    """Optimiser and lengths of the `steps` of a budget: cpu a cosine from 2e-3, paper a constant 1e-3 (Glow by Adamax)."""
    c.optim.update(learning_rate=2e-3, clip=5.0, schedule="cosine", warmup=steps // 20)
    if budget == "paper":
        c.optim.update(learning_rate=1e-3, schedule="constant", warmup=1000, name="adamax" if name == "glow" else "adam")
    c.train.update(steps=steps, log_every=min(steps // 40, 1000), eval_every=steps // 4, checkpoint_every=steps // 4)
    c.eval.update(k=1 if budget == "paper" else 5, chunk=5, batch=100)  # the papers draw the noise once
