"""What distillation buys: samples per second of the student and of its teacher, and KL(student || teacher) on fresh samples.

    python -m benchmarks.distill --workdir=runs/student --output=results/speed_distill.md

Both sample a batch in one compiled program, one example or many, in turns in one process, so that a busy machine slows both; the ratio
is the median over turns. The teacher is the run that the student's config names as `model.teacher`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from vaeflow import data
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.model import Model, Params
from vaeflow.run import load_run


def sampler(model: Model, params: Params, n: int, context: Any) -> Callable[[int], float]:
    """seed -> seconds of n samples; compiled and run once."""
    assert model.sample is not None
    compiled = jax.jit(model.sample, static_argnums=2)

    def run(seed: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(params, jax.random.key(seed), n, context))
        return time.perf_counter() - began

    run(0)
    return run


def divergence(model: Model, params: Params, n: int, context: Any, event: tuple[int, ...]) -> tuple[float, float]:
    """(KL(student || teacher), its standard error) in nats over at least n fresh samples."""
    assert model.terms is not None
    batch = {"x": jnp.zeros((n, *event))} | ({} if context is None else {"context": context})
    return mean_se(np.asarray(jax.jit(model.terms)(params, jax.random.key(1), batch)["kl_to_teacher"]))


def main() -> None:
    """Measure, print, write."""
    p = common.parser(__doc__)
    p.add_argument("--workdir", type=Path, required=True, help="the student's run")
    p.add_argument("--samples", type=int, default=1000, help="in the larger batch")
    p.add_argument("--turns", type=int, default=20)
    flags = p.parse_args()
    student, params, config = load_run(flags.workdir)
    if student.terms is None:
        raise SystemExit(f"--workdir={flags.workdir} is no student: its model.kind is {config.model.kind!r}")
    try:
        teacher, learned, _ = load_run(Path(config.model.teacher["from"]).expanduser())
    except UserError as error:
        raise SystemExit(f"the teacher, model.teacher={config.model.teacher['from']!r}: {error}") from None
    context = None
    if config.data.context != "none":
        context = np.asarray(data.load(config.data, config.seed).train.context)
        context = jnp.asarray(np.resize(context, (flags.samples, context.shape[-1])))
    rows = []
    for n in (1, flags.samples):
        given = None if context is None else context[:n]
        both = [sampler(teacher, learned, n, given), sampler(student, params, n, given)]
        times = [[run(turn) for run in both] for turn in range(1, flags.turns + 1)]
        ratio, low, high = common.middle([slow / fast for slow, fast in times])
        slow, fast = (statistics.median(pair[i] for pair in times) for i in range(2))
        rows.append([n, *(f"{1000 * t:.2f}" for t in (slow, fast)), *(round(n / t) for t in (slow, fast)), f"{ratio:.2f}"])
        rows[-1].append(f"{low:.2f} to {high:.2f}")
    kl, error = divergence(student, params, flags.samples, context, student.event or ())
    titles = ["batch", "teacher [ms]", "student [ms]", "teacher [examples/s]", "student [examples/s]", "teacher / student", "quartiles"]
    notes = (
        f"KL(student || teacher) = {kl:.3f} ± {error:.3f} nats per example (standard error over {flags.samples:,} means of fresh samples)."
        f" Times are medians of {flags.turns} turns. A teacher that inverts incrementally does the work of about one pass, in D steps one"
        " after another: the student saves the steps, not the work."
    )
    common.sheet("Sampling from a distilled student and its teacher", titles, rows, notes, flags.output, "benchmarks.distill")


if __name__ == "__main__":
    main()
