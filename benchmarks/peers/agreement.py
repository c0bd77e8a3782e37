"""Log-densities of vaeflow and of zuko and nflows on the same weights.

    python -m benchmarks.peers.agreement --zuko=PYTHON --nflows=PYTHON --output=results/peers_agreement.md

A flow of three layers with noise on every weight is written to a file with points, their log-densities, noise and its image; the
other library, in a process of its own interpreter PYTHON, builds the same flow and takes the weights over. What is compared:

independent     masks and degrees of MADE (what is masked away here is not zero in the file), orders of the inputs, splits of couplings,
                the networks, composition, sum of log-determinants, base density, both directions: the other library's own code. Its own
                sequential inversion (D passes) checks the incremental one
splines         nflows takes the networks' raw numbers (those of slopes plus a constant): knots, slopes, bins and tails
                are its own. zuko squashes widths, heights and slopes differently, so with_zuko.py computes the knots and gives it the
                numbers that it makes them of; bins and tails are its own
affine maps     the three bound the scale differently (here exp(cap * tanh(raw / cap))). Both scripts compute this scale from the
                network's raw numbers and give it to the other library's affine map

Exit status 1 when a log-density differs by more than LIMIT.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from benchmarks import common
from benchmarks.peers import process
from benchmarks.peers.weights import most
from vaeflow.bijectors import Layer
from vaeflow.build import build
from vaeflow.distributions import standard_normal

LIMIT = 1e-5
DIMENSIONS, POINTS, FEATURES, HIDDEN = 5, 2000, 3, (16, 16)
NOISE, SPREAD = 0.15, 1.3
SPLINE = dict(bins=6, bound=2.0, min_width=1e-3, min_height=1e-3, min_slope=1e-3)
COUPLINGS = tuple(dict(mask=mask, flip=flip) for mask, flip in (("half", False), ("alternating", True), ("half", True)))
ORDERS = tuple(dict(order=order) for order in ("natural", "reverse", "random"))
# case: (kind of layer, arguments of its transformer, how the layers differ, whether there is a context, libraries)
CASES: dict[str, tuple[str, Mapping[str, Any], tuple[dict[str, Any], ...], bool, tuple[str, ...]]] = {
    "RealNVP": ("affine_coupling", dict(cap=2.0), COUPLINGS, False, ("zuko", "nflows")),
    "RealNVP, conditional": ("affine_coupling", dict(cap=2.0), COUPLINGS, True, ("zuko",)),
    "RQ-NSF, coupling": ("spline_coupling", SPLINE, COUPLINGS, False, ("zuko", "nflows")),
    "MAF": ("affine_autoregressive", dict(cap=2.0), ORDERS, False, ("zuko", "nflows")),
    "MAF, conditional": ("affine_autoregressive", dict(cap=2.0), ORDERS, True, ("zuko",)),
    "RQ-NSF, autoregressive": ("spline_autoregressive", SPLINE, ORDERS, False, ("zuko", "nflows")),
}


def flow(name: str) -> tuple[Layer, list[dict[str, Any]]]:
    """The case's layer and the descriptions of its three, from the data to the latent."""
    kind, transformer, differences, _, _ = CASES[name]
    net: dict[str, Any] = dict(hidden=HIDDEN, activation="relu", dtype="float32")
    layers, parts = [], {}
    for i, own in enumerate(differences):
        if "order" in own:
            parts[f"net{i}"] = net | own | dict(kind="made", inversion="incremental", tolerance=1e-6)
            parts[f"layer{i}"] = dict(kind=kind, made=f"net{i}", **transformer)
        else:
            parts[f"net{i}"] = net | dict(kind="mlp")
            parts[f"layer{i}"] = dict(kind=kind, net=f"net{i}", **transformer, **own)
        layers.append(dict(kind=kind) | dict(transformer) | own)
    parts["flow"] = dict(kind="chain", of=[f"layer{i}" for i in range(len(layers))])
    return build(parts, "flow", Layer), layers


def write(name: str, file: Path, file32: Path) -> float:
    """The files of a case (weights.py says what stands in them) with points in float64 and in float32; log-densities are computed in
    float64 in both. The error of what vaeflow computes in float32, which 99% of the points stay below."""
    layer, layers = flow(name)
    noise = np.random.default_rng(0)
    z = SPREAD * noise.normal(size=(POINTS, DIMENSIONS))  # some of it outside the splines' interval
    context = noise.normal(size=(POINTS, FEATURES)) if CASES[name][3] else None
    narrow = z.astype("float32")
    narrow_context = None if context is None else context.astype("float32")
    params = layer.init(jax.random.key(0), jnp.asarray(narrow), None if narrow_context is None else jnp.asarray(narrow_context))
    params = jax.tree.map(lambda a: a + NOISE * noise.normal(size=a.shape).astype(a.dtype) if a.dtype.kind == "f" else a, params)

    @jax.jit
    def image(params, z, context):
        return layer.bijector(params, context=context).forward(z)

    @jax.jit
    def density(params, x, context):
        latent, log_det = layer.bijector(params, context=context).inverse_and_log_det(x)
        return standard_normal((DIMENSIONS,)).log_prob(latent) + log_det

    weights: dict[str, Any] = {}
    for i, own in enumerate(layers):
        mine = params[f"{i:02d}"]
        weights |= {f"{i}/{path}": leaf for path, leaf in flatten_dict(mine["net"], sep="/").items()}
        if "order" in own:
            random = mine.get("fixed", {}).get("order")
            weights[f"{i}/order"] = np.arange(DIMENSIONS)[:: -1 if own["order"] == "reverse" else 1] if random is None else random
    size = 2 if "cap" in CASES[name][1] else 3 * SPLINE["bins"] - 1
    weights["case"] = np.array(json.dumps(dict(layers=layers, hidden=HIDDEN, size=size)))

    def save(file: Path, **points: Any) -> None:
        arrays: dict[str, Any] = {key: np.asarray(value) for key, value in (weights | points).items() if value is not None}
        np.savez(file, **arrays)

    narrow_x = np.asarray(image(params, narrow, narrow_context))
    mine = np.asarray(density(params, narrow_x, narrow_context))
    with jax.enable_x64(True):
        x = image(params, z, context)
        save(file, z=z, x=x, log_prob=density(params, x, context), context=context)
        exact = density(params, narrow_x.astype("float64"), None if narrow_context is None else narrow_context.astype("float64"))
        save(file32, z=narrow, x=narrow_x, log_prob=exact, context=narrow_context)
    return most(mine, np.asarray(exact))


def main() -> None:
    """Write the cases, ask the libraries, print; exit 1 above LIMIT."""
    p = common.parser(__doc__)
    for library in ("zuko", "nflows"):
        p.add_argument(f"--{library}", metavar="PYTHON", help=f"interpreter of an environment with {library}; left out without it")
    flags = p.parse_args()
    pythons = {name: python for name, python in (("zuko", flags.zuko), ("nflows", flags.nflows)) if python}
    if not pythons:
        p.error("name at least one interpreter: --zuko=PYTHON, --nflows=PYTHON")
    rows: list[list[Any]] = []
    versions: dict[str, str] = {}
    apart: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: (Path(folder) / f"{i}_float64.npz", Path(folder) / f"{i}_float32.npz") for i, name in enumerate(CASES)}
        own = {name: write(name, *pair) for name, pair in files.items()}
        for library, python in pythons.items():
            mine = [name for name in CASES if library in CASES[name][4]]
            answers = process.ask(python, f"with_{library}", "agreement", *(file for name in mine for file in files[name]))
            for name, wide, narrow in zip(mine, answers[::2], answers[1::2], strict=True):
                errors = (wide["log_prob"], wide["sample"], own[name], narrow["most"])
                rows.append([name, library, *(f"{error:.1e}" for error in errors)])
                apart.append(wide["log_prob"])
                versions |= wide["versions"]
    rows.sort(key=lambda row: list(CASES).index(row[0]))
    titles = ["flow", "library", "log_prob [nats]", "samples", "float32: vaeflow [nats]", "float32: library [nats]"]
    notes = (
        f"Largest differences over {POINTS} points with D={DIMENSIONS}, in float64: of log-densities (at most {LIMIT:g} is right), and of"
        f" the images of the same noise of standard deviation {SPREAD}, relative to 1 + |x|. float32: the error of the log-density that"
        " each computes in float32, against float64 at the same points; 99% of the points are below (the rest is rounding that steep"
        " splines magnify)."
        f" Three layers, nets {'x'.join(map(str, HIDDEN))}, normal noise of {NOISE} on every weight. With"
        f" {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}."
    )
    command = " ".join(["benchmarks.peers.agreement", *(f"--{name}=PYTHON" for name in pythons)])
    common.sheet("Densities on the same weights: vaeflow and other libraries", titles, rows, notes, flags.output, command)
    sys.exit(not all(error <= LIMIT for error in apart))


if __name__ == "__main__":
    main()
