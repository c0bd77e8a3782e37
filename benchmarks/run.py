"""Speed beside FlowJAX, zuko and nflows: the same work, each library in its own process and environment, in turns, in one run.

    python -m benchmarks.run --flowjax=FLOWJAX/bin/python --zuko=PEERS/bin/python --nflows=PEERS/bin/python --output=results/speed.md

benchmarks/peers/README.md says how the environments are made. A training step is what each library's own training does: vaeflow 16 steps in
one dispatch over data that stay on the device; FlowJAX the compiled `step` of its fit_to_data in a Python loop; zuko and nflows an eager
step with torch.optim.Adam. log_prob is of one batch, a draw of 1,000 points. Times are medians over rounds; a ratio is the median over
rounds of (the library's time) / (vaeflow's time of the same round). The floor is the arithmetic of the matrix products (dense, and without
the zeros of masked networks) at the rate of a 1024 x 1024 float32 product, measured in turns with them. Compilation is timed in processes
of their own. Peaks are of the process's memory during a task, its libraries included. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

from benchmarks import common
from benchmarks.peers import works
from benchmarks.peers.process import Worker

LIBRARIES = {"vaeflow": "with_vaeflow", "FlowJAX": "with_flowjax", "zuko": "with_zuko", "nflows": "with_nflows"}
HAVE = {"spline": tuple(LIBRARIES), "maf": tuple(LIBRARIES), "vae": ("vaeflow", "zuko")}
# (work, task, library): how many times vaeflow's time it must take at the least.
GOALS = {
    ("spline", "train", "FlowJAX"): 1.5,
    ("spline", "train", "zuko"): 3.0,
    ("spline", "train", "nflows"): 3.0,
    ("spline", "log_prob", "FlowJAX"): 1.5,
    ("maf", "train", "FlowJAX"): 1.5,
    ("maf", "log_prob", "FlowJAX"): 1.5,
    ("maf", "sample", "FlowJAX"): 10.0,
    ("vae", "train", "zuko"): 2.0,
}
TASKS = {"train": "training step", "log_prob": "log_prob (VAE: ELBO)", "sample": "1,000 samples"}
COMPILING = ("vaeflow", "FlowJAX")
COMPILE = 5.0  # seconds of a sampler's compilation at the most


def started(name: str, library: str, python: str) -> Worker:
    """The process of a library, ready for requests."""
    return Worker(python, LIBRARIES[library], "speed", name)


def compilations(name: str, pythons: dict[str, str], times: int) -> dict[tuple[str, str], list[float]]:
    """{(task, library): seconds of its compilation in every one of so many fresh processes}, the libraries in turns."""
    out: dict[tuple[str, str], list[float]] = {}
    for _ in range(times):
        for library, python in pythons.items():
            worker = started(name, library, python)
            worker.close()
            for task, seconds in worker.first["compile"].items():
                out.setdefault((task, library), []).append(seconds)
    return out


def work(name: str, pythons: dict[str, str], rounds: int, seconds: float, starts: int) -> tuple[list[list[Any]], list[str], dict[str, str]]:
    """(rows of the table, goals that are missed, {library: versions}) of one work."""
    here = {library: pythons[library] for library in HAVE[name] if pythons.get(library)}
    compiled = compilations(name, {library: python for library, python in here.items() if library in COMPILING}, starts)
    workers = {library: started(name, library, python) for library, python in here.items()}
    found: dict[tuple[str, str], list[float]] = {(task, library): [] for task in TASKS for library in workers}
    peak, products = dict.fromkeys(found, 0.0), []
    for turn in range(rounds):
        for task in TASKS:
            products.append(workers["vaeflow"].ask("product", seconds / 4)["ms"])
            for library in list(workers)[turn % len(workers) :] + list(workers)[: turn % len(workers)]:
                answer = workers[library].ask(task, seconds)
                found[task, library].append(answer["ms"])
                peak[task, library] = max(peak[task, library], answer["peak_mb"])
    for worker in workers.values():
        worker.close()
    rate = 2e-6 * works.PRODUCT**3 / common.middle(products)[0]  # 10^9 operations a second
    rows, missed = [], []
    for task, library in itertools.product(TASKS, HAVE[name]):
        goal = GOALS.get((name, task, library))
        if library not in workers:
            rows.append([works.WORKS[name]["title"], TASKS[task], library, "absent", *[""] * 7])
            if goal:
                missed.append(f"{name}, {TASKS[task]}: {library} is absent, its goal not measured")
            continue
        mine, own = found[task, "vaeflow"], found[task, library]
        ratio, low, high = common.middle([b / a for a, b in zip(mine, own, strict=True)])
        ms = common.middle(own)[0]
        floors = [works.gflop(name, task, triangular) / rate * 1e3 for triangular in (False, True)]
        compiling = common.middle(compiled[task, library])[0] if (task, library) in compiled else None
        rows.append(
            [
                *(works.WORKS[name]["title"], TASKS[task], library, f"{ms:.2f}", f"{ratio:.2f}"),
                f"{low:.2f} to {high:.2f}" if library != "vaeflow" else "",
                f"{floors[0]:.1f}, {floors[1]:.1f}",
                f"{100 * floors[0] / ms:.0f}%",
                "" if compiling is None else f"{compiling:.1f}",
                workers[library].first["parameters"],
                f"{peak[task, library]:,.0f}",
            ]
        )
        if goal and ratio < goal:
            missed.append(f"{name}, {TASKS[task]}: {library} takes {ratio:.2f} times vaeflow's time, the goal is {goal:g}")
    missed += slow_compilations(name, compiled)
    versions = {library: ", ".join(f"{k} {v}" for k, v in worker.first["versions"].items()) for library, worker in workers.items()}
    return rows, missed, versions | {"rate": f"{rate:.0f} GFLOP/s"}


def slow_compilations(name: str, compiled: dict[tuple[str, str], list[float]]) -> list[str]:
    """Goals of compile time that are missed: training no slower than FlowJAX's, sampling within COMPILE seconds."""
    middle = {key: common.middle(seconds)[0] for key, seconds in compiled.items()}
    mine, theirs, draws = (middle.get(key) for key in (("train", "vaeflow"), ("train", "FlowJAX"), ("sample", "vaeflow")))
    out = []
    if mine and theirs and mine > theirs:
        out.append(f"{name}: the training step compiles in {mine:.1f} s, FlowJAX's in {theirs:.1f}")
    if draws and draws > COMPILE:
        out.append(f"{name}: the sampler compiles in {draws:.1f} s, the goal is {COMPILE:g}")
    return out


def main() -> None:
    """Measure, print, write; exit 1 where a goal is missed."""
    p = common.parser(__doc__)
    for library in list(LIBRARIES)[1:]:
        p.add_argument(f"--{library.lower()}", default="", help=f"the python of an environment with {library}")
    p.add_argument("--works", nargs="*", default=list(works.WORKS), choices=list(works.WORKS))
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--seconds", type=float, default=1.0, help="of calls in each round")
    p.add_argument("--starts", type=int, default=3, help="fresh processes in which compilation is timed")
    flags = p.parse_args()
    pythons = {"vaeflow": sys.executable} | {name: getattr(flags, name.lower()) for name in list(LIBRARIES)[1:]}
    rows, missed, versions, rates = [], [], {}, []
    for name in flags.works:
        found, lacking, own = work(name, pythons, flags.rounds, flags.seconds, flags.starts)
        rates.append(own.pop("rate"))
        rows, missed, versions = rows + found, missed + lacking, versions | own
    titles = (
        "work",
        "task",
        "library",
        "ms",
        "ratio",
        "quartiles",
        "floor [ms]: dense, triangular",
        "of the dense floor",
        "compile [s]",
        "parameters",
        "process's peak [MB]",
    )
    told = "; ".join(f"{library}: {found}" for library, found in versions.items())
    batches = ", ".join(str(works.WORKS[name]["batch"]) for name in flags.works)
    notes = (
        f"Medians over {flags.rounds} rounds in turns, float32, batches of {batches}; {told}. Matrix products: {', '.join(rates)}."
        f" Goals missed: {'; '.join(missed) or 'none'}."
    )
    common.sheet("Speed beside other libraries", titles, rows, notes, flags.output, f"benchmarks.run --rounds={flags.rounds}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
