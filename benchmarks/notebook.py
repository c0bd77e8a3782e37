"""A neural spline flow of five tables of scikit-learn in a notebook's script: vaeflow, FlowJAX and zuko.

The scripts are benchmarks/peers/notebook_*.py. Exit status 1 if vaeflow's held-out log-likelihood is worse in any data set, by more than
two standard errors of the paired difference over the test examples.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets

from benchmarks import common
from benchmarks.peers import process

LIBRARIES = ("flowjax", "zuko")
STEPS, SEEDS, SPLIT_SEED = 2000, (0, 1, 2), 0
SCRIPTS = Path(__file__).parent / "peers"


class Fits(NamedTuple):
    """What a library's script gave on a data set: log p(x_test) [seeds, N] in nats, seconds [seeds] and {package: version}."""

    log_prob: np.ndarray
    seconds: list[float]
    versions: Mapping[str, str]


def resolution(x: np.ndarray) -> np.ndarray:
    """[D]: the smallest distance of two different values in a column, after rounding to 8 digits behind the point."""
    return np.array([np.diff(np.unique(np.round(column, 8))).min() for column in x.T])


def tables() -> dict[str, np.ndarray]:
    """{name: [N, D] float64}. Measured tables have ties: uniform noise as wide as a column's resolution makes them continuous."""
    measured: dict[str, Any] = {
        "wine": datasets.load_wine(return_X_y=True)[0],
        "breast_cancer": datasets.load_breast_cancer(return_X_y=True)[0],
        "diabetes": datasets.load_diabetes(return_X_y=True, scaled=False)[0],
    }
    noise = np.random.default_rng(SPLIT_SEED)
    return {
        "moons": np.asarray(datasets.make_moons(5_000, noise=0.1, random_state=SPLIT_SEED)[0]),
        "swiss_roll": np.asarray(datasets.make_swiss_roll(5_000, noise=0.5, random_state=SPLIT_SEED)[0]),
        **{name: x + resolution(x) * noise.uniform(-0.5, 0.5, x.shape) for name, x in measured.items()},
    }


def splits(x: np.ndarray) -> dict[str, Any]:
    """x_train, x_val, x_test: 80, 10 and 10 % of the rows by a fixed permutation."""
    x = x[np.random.default_rng(SPLIT_SEED).permutation(len(x))]
    train, val = round(0.8 * len(x)), round(0.9 * len(x))
    return {"x_train": x[:train], "x_val": x[train:val], "x_test": x[val:]}


def counted_lines(library: str) -> int:
    """Lines of a script between `# begin` and `# end`, without empty ones and comments."""
    found = re.search(r"# begin\n(.*)# end\n", (SCRIPTS / f"notebook_{library}.py").read_text(), re.DOTALL)
    assert found is not None
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in found[1].splitlines())


def difference(ours: Fits, theirs: Fits) -> tuple[float, float]:
    """(mean, standard error) over the test examples of ours - theirs, each a mean over seeds [nats]."""
    paired = ours.log_prob.mean(0) - theirs.log_prob.mean(0)
    return float(paired.mean()), float(paired.std(ddof=1) / np.sqrt(len(paired)))


def rows(name: str, found: Mapping[str, Fits], size: str) -> list[list[object]]:
    """A data set's rows of the table, a library each."""
    lines: list[list[object]] = []
    for library, fits in found.items():
        means = fits.log_prob.mean(1)
        se = fits.log_prob.mean(0).std(ddof=1) / np.sqrt(fits.log_prob.shape[1])
        spread = means.std(ddof=1) if len(means) > 1 else float("nan")
        behind = "" if library == "vaeflow" else "{:+.3f} +- {:.3f}".format(*difference(found["vaeflow"], fits))
        again = f"{fits.seconds[1]:.1f}" if len(fits.seconds) > 1 else ""
        numbers = [f"{means.mean():.3f}", f"{spread:.3f}", f"{se:.3f}", behind]
        lines.append([name, size, library, *numbers, f"{fits.seconds[0]:.1f}", again, counted_lines(library)])
    return lines


def fitted(pythons: Mapping[str, str], file: Path, steps: int, seeds: Sequence[int]) -> dict[str, Fits]:
    """{library: Fits} of the arrays in a file."""
    found = {}
    for library, python in pythons.items():
        answers = process.ask(python, f"notebook_{library}", "fit", file, steps, *seeds)
        log_prob = np.array([answer["log_prob"] for answer in answers])
        found[library] = Fits(log_prob, [answer["seconds"] for answer in answers], answers[0]["versions"])
    return found


def main() -> None:
    """Write the data, run every script, print, write; exit 1 when vaeflow is worse."""
    p = common.parser(__doc__)
    for library in LIBRARIES:
        p.add_argument(f"--{library}", metavar="PYTHON", help=f"interpreter of an environment with {library}; left out without it")
    p.add_argument("--steps", type=int, default=STEPS, help=f"default: {STEPS}")
    p.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help=f"default: {' '.join(map(str, SEEDS))}")
    p.add_argument("--only", nargs="+", metavar="DATA", help="some of the data sets")
    flags = p.parse_args()
    peers = {name: getattr(flags, name) for name in LIBRARIES if getattr(flags, name)}
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # the first fit compiles, in every library
    lines, worse, versions = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, x in tables().items():
            if flags.only and name not in flags.only:
                continue
            file = Path(folder) / f"{name}.npz"
            np.savez(file, **splits(x))
            found = fitted({"vaeflow": sys.executable, **peers}, file, flags.steps, flags.seeds)
            own = rows(name, found, f"{len(x):,} x {x.shape[1]}")
            print(*own, sep="\n", flush=True)
            lines += own
            for library in peers:
                mean, se = difference(found["vaeflow"], found[library])
                worse += [f"{name}: {mean:.3f} +- {se:.3f} nats beside {library}"] * (mean < -2 * se)
            versions |= {library: ", ".join(f"{k} {v}" for k, v in fits.versions.items()) for library, fits in found.items()}
    titles = [
        "data",
        "rows x D",
        "library",
        "log p(x) [nats]",
        "spread of seeds",
        "SE of examples",
        "vaeflow - it",
        "first [s]",
        "second [s]",
    ]
    notes = (
        f"Held-out mean log-likelihood of the raw data on a test split of 10 %, mean over {len(flags.seeds)} seeds; its standard"
        " deviation over seeds; its standard error over test examples; vaeflow's minus the library's, with the standard error"
        " of the paired difference. Seconds from the library's import to the test log-likelihood: the first fit of a process,"
        " with import and compilation, and its second fit, with another seed. lines: of that part, without empty lines and"
        " comments (benchmarks/peers/notebook_*.py). All: coupling flow, 4 layers, 8 bins, hidden 64x2, Adam at 1e-3, at most"
        f" {flags.steps:,} steps of 256 rows or of the whole smaller set, early stopping after a quarter of the steps without"
        " improvement, best parameters on 10 % of the rows. Everything else is the library's default; vaeflow's adds a cosine"
        " schedule, a moving average of the parameters and an LU layer per coupling. FlowJAX draws its validation rows from"
        " training and validation rows. wine, breast_cancer and diabetes (unscaled) have ties: the same uniform noise of the"
        " resolution of each column was added for all libraries."
        f" {'; '.join(f'{library} ({used})' for library, used in versions.items())}."
    )
    changed = [f"--steps={flags.steps}"] * (flags.steps != STEPS)
    changed += [f"--seeds {' '.join(map(str, flags.seeds))}"] * (tuple(flags.seeds) != SEEDS)
    changed += [f"--only {' '.join(flags.only)}"] if flags.only else []
    command = " ".join(["benchmarks.notebook", *(f"--{name}=PYTHON" for name in peers), *changed])
    common.sheet("A neural spline flow in a notebook", [*titles, "lines"], lines, notes, flags.output, command)
    if worse:
        print("worse: " + "; ".join(worse), file=sys.stderr)
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
