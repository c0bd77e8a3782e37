"""How cost grows: with dimensions, layers, draws of IWAE-k, the batch, and the number of devices.

    python -m benchmarks.scaling --output=results/scaling.md

Five series, each on the smallest model that shows it; a figure beside the output file. Times are medians of warm calls in one process, one
after another, so shapes count and not digits. IWAE-k must be linear in k with constant memory: exit status 1 where the last step of k
takes more than twice its share of time, or more memory. The devices are fake ones on the same cores (NPROC=16 keeps them from waiting for
each other's threads): that series shows what the mapping costs, not what devices gain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import common
from benchmarks.peers.process import measure
from benchmarks.steps import made_of, trained
from configs.base import base, made, mlp, repeat, spline
from vaeflow.evaluation import likelihood
from vaeflow.evaluation.map_split import map_split
from vaeflow.training import setup
from vaeflow.training.configure import complete

Point = dict[str, Any]  # series, x, what, value


def flow_config(d: int, layers: int, kind: str) -> ConfigDict:
    """A flow on vectors: spline couplings or MAF layers, nets 128x2."""
    c = base()
    c.model = dict(kind="flow", event=(d,), layer="flow")
    parts: dict[str, Any] = dict(flow=repeat("step", layers), step=dict(kind="chain", of=("layer", "flip")))
    parts["flip"] = dict(kind="permutation")
    if kind == "maf":
        parts |= dict(layer=dict(kind="affine_autoregressive", made="made", cap=3.0), made=made(128, 128))
    else:
        parts |= dict(layer=spline("net", "half", False), net=mlp(128, 128))
    c.parts = parts
    c.data.update(kind="npz", batch=256)
    return complete(c)


def dimensions(values: Sequence[int]) -> list[Point]:
    """A MAF of 3 layers: training step, log_prob and draws against D."""
    out, key = [], jax.random.key(0)
    for d in values:
        x = made_of(flow_config(d, 3, "maf"))
        params = setup.init_params(x)[0]
        assert x.model.log_prob is not None and x.model.sample is not None
        score, draw = jax.jit(x.model.log_prob), jax.jit(x.model.sample, static_argnums=2)
        batch = setup.first_batch(x)
        found = {
            "training step, batch 256 [ms]": trained(x).ms,
            "log_prob, batch 256 [ms]": measure(lambda run=score, p=params, b=batch: run(p, key, b).block_until_ready(), 1.0),
            "1,000 draws [ms]": measure(lambda run=draw, p=params: run(p, key, 1000).block_until_ready(), 1.0),
        }
        out += [dict(series="dimensions D of a MAF", x=d, what=what, value=value) for what, value in found.items()]
    return out


def depth(values: Sequence[int]) -> list[Point]:
    """Spline couplings on 8 dimensions: training step, and the first dispatch with its compilation, against the layers."""
    out = []
    for n in values:
        took = trained(made_of(flow_config(8, n, "spline")))
        found = {"training step, batch 256 [ms]": took.ms, "first dispatch [s]": took.first}
        out += [dict(series="layers of a spline coupling flow", x=n, what=what, value=value) for what, value in found.items()]
    return out


def draws(values: Sequence[int]) -> list[Point]:
    """IWAE-k of the digits' VAE on 300 images: seconds, and the temporary memory of one batch's program, against k."""
    x = made_of(common.load("configs/digits_vae.py", {"eval.batch": 100}))
    params, split = setup.init_params(x)[0], x.source.split("test")
    out = []
    for k in values:
        example = likelihood.importance(x.model, k, 50)
        run = map_split(example, split, jax.random.key(0), batch=100, draws=k)
        ms = measure(lambda run=run: [np.asarray(part["log_prob"]) for part in run(params)], 1.0)
        one = {"x": jnp.asarray(split.x[:100, None])}
        keys = jax.random.split(jax.random.key(0), 100)
        program = jax.jit(jax.vmap(example, in_axes=(None, 0, 0))).lower(params, keys, one).compile().memory_analysis()
        found = {"300 images [s]": ms / 1e3, "memory of 100 images [MB]": program.temp_size_in_bytes / 1e6 if program else float("nan")}
        out += [dict(series="draws k of IWAE-k", x=k, what=what, value=value) for what, value in found.items()]
    return out


def batches(values: Sequence[int]) -> list[Point]:
    """Microseconds of training an example, against the batch, of the spline flow of 4 layers."""
    out = []
    for batch in values:
        c = flow_config(8, 4, "spline")
        c.data.batch = batch
        out.append(dict(series="batch", x=batch, what="one example in training [us]", value=1e3 * trained(made_of(c)).ms / batch))
    return out


def devices(values: Sequence[int]) -> list[Point]:
    """A training step over fake devices of this machine's cores, by pmap."""
    out = []
    for n in values:
        env = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scaling", "--step"], env=env, stdout=subprocess.PIPE, text=True, check=True
        )
        ms = json.loads(done.stdout.splitlines()[-1])
        out.append(dict(series="fake devices on the same cores", x=n, what="training step, batch 256 [ms]", value=ms))
    return out


def draw(points: Sequence[Point], path: Path) -> None:
    """A panel per series; the vertical axis has the unit, and is logarithmic where it spans much."""
    from matplotlib.ticker import LogLocator

    from vaeflow.figures.canvas import COLOURS, canvas

    names = list(dict.fromkeys(p["series"] for p in points))
    with canvas(path, 3.1 * len(names), 3.2) as figure:
        for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            mine = [p for p in points if p["series"] == name]
            units = list(dict.fromkeys(p["what"].rpartition("[")[2].rstrip("]") for p in mine))
            for colour, what in zip(COLOURS, dict.fromkeys(p["what"] for p in mine), strict=False):
                xy = [(p["x"], p["value"]) for p in mine if p["what"] == what]
                label = what.rpartition(" [")[0] if len(units) == 1 else what
                ax.plot(*np.array(xy).T, "o-", ms=4, color=colour, label=label)
            ticks = sorted({p["x"] for p in mine})
            ax.set(xlabel=name, xscale="log", ylabel=" or ".join(units))
            ax.set_xticks(ticks, [f"{x:,}" for x in ticks])
            if max(p["value"] for p in mine) > 4 * min(p["value"] for p in mine):
                ax.set(yscale="log")
                ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            else:
                ax.set(ylim=(0, None))
            ax.minorticks_off()
            ax.legend(loc="best", fontsize=7)


def main() -> None:
    """Measure, print, write; exit 1 where IWAE-k is not linear in k or its memory grows."""
    p = common.parser(__doc__)
    p.add_argument("--step", action="store_true", help="print the milliseconds of one training step on all devices, and nothing else")
    flags = p.parse_args()
    if flags.step:
        print(json.dumps(trained(made_of(flow_config(8, 4, "spline"))).ms))
        return
    k = draws((10, 100, 1000, 10_000))
    points = [*dimensions((8, 32, 128, 512)), *depth((1, 2, 4, 8, 16, 32)), *k, *batches((16, 64, 256, 1024, 4096)), *devices((1, 2, 4, 8))]
    seconds, memory = ([q["value"] for q in k if q["what"].endswith(unit)] for unit in ("[s]", "[MB]"))
    # The tail that Pareto-k keeps, 3 sqrt k numbers an example, may grow.
    bad = seconds[-1] > 20 * seconds[-2] or memory[-1] > 1.5 * memory[-2]
    rows = [[q["series"], q["x"], q["what"], q["value"]] for q in points]
    notes = "Medians of warm calls. Fake devices share the cores: they show overhead, not speed (1: jit, more: pmap). " + (
        "IWAE-k: GOAL MISSED." if bad else "IWAE-k is linear in k, its memory constant."
    )
    common.sheet("How cost grows", ("series", "x", "what", "value"), rows, notes, flags.output, "benchmarks.scaling")
    if flags.output is not None:
        draw(points, flags.output.with_suffix(".png"))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
