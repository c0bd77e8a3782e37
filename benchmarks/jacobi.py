"""Jacobi's iteration against one patch after the other in the samples of a trained TarFlow: error and seconds by the number of iterations.

    python -m benchmarks.jacobi --workdir=runs/digits_tarflow --output=results/jacobi.md

Every autoregressive layer is solved by at most so many iterations. The error is the largest difference from the samples of the sequential
way, relative to the standard deviation of these; seconds are those of one call after the first, for --samples samples.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vaeflow
from vaeflow.bijectors.patches import patch_autoregressive
from vaeflow.model import Model

ITERATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


def remade(part: Any, **changed: Any) -> Any:
    """A part made again, its autoregressive layers with these arguments."""
    if isinstance(part, tuple) and not hasattr(part, "_fields"):
        return tuple(remade(each, **changed) for each in part)
    spec = getattr(part, "spec", None)
    if spec is None:
        return part
    arguments = {name: remade(value, **changed) for name, value in spec.arguments.items()}
    return spec.make(**arguments | (changed if spec.make is patch_autoregressive else {}))


def samples(model: Model, params: Any, n: int) -> tuple[np.ndarray, float]:
    """(samples [n, ...] before rounding, seconds)."""
    sample = model.sample
    assert sample is not None
    draw = jax.jit(lambda params, key: sample(params, key, n))
    jax.block_until_ready(draw(params, jax.random.key(0)))
    start = time.perf_counter()
    found = jax.block_until_ready(draw(params, jax.random.key(0)))
    return np.asarray(found["x"], np.float64), time.perf_counter() - start


def table(directory: str, n: int) -> list[str]:
    """The lines of the table of a run."""
    run = vaeflow.load(directory)
    model = remade(run.model, levels=0, dequantize="none") if "levels" in run.model.spec.arguments else run.model
    want, seconds = samples(remade(model, inversion="sequential"), run.params, n)
    lines = ["| iterations per layer | largest error | seconds |", "|---|---|---|", f"| sequential |  | {seconds:.3f} |"]
    for iterations in ITERATIONS:
        x, seconds = samples(remade(model, inversion="jacobi", iterations=iterations), run.params, n)
        lines.append(f"| {iterations} | {np.abs(x - want).max() / want.std():.2e} | {seconds:.3f} |")
    x, seconds = samples(remade(model, inversion="jacobi"), run.params, n)
    return [*lines, f"| until the tolerance | {np.abs(x - want).max() / want.std():.2e} | {seconds:.3f} |"]


def main() -> None:
    """Print the table of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", required=True, help="a run of a flow with patch_autoregressive layers")
    parser.add_argument("--samples", type=int, default=64, help="how many samples are drawn at once")
    parser.add_argument("--output", default="", help="a file for the table")
    args = parser.parse_args()
    lines = table(args.workdir, args.samples)
    print("\n".join(lines))
    if args.output:
        Path(args.output).write_text("\n".join([f"# Jacobi's iteration: {args.samples} samples of {args.workdir}", "", *lines, ""]))


if __name__ == "__main__":
    main()
