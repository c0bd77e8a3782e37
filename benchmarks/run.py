"""Speed beside FlowJAX, zuko and nflows: the same work, each library in its own process and environment, in turns, in one run.

    python -m benchmarks.run --flowjax=FLOWJAX/bin/python --zuko=PEERS/bin/python --nflows=PEERS/bin/python --output=results/speed.md

benchmarks/peers/README.md says how the environments are made. A training step is what each library's own training does: vaeflow 16 steps in
one dispatch over data that stay on the device; FlowJAX the compiled `step` of its fit_to_data in a Python loop; zuko and nflows an eager
step with torch.optim.Adam. log_prob is of one batch, a draw of 1,000 points. Times are medians over rounds; a ratio is the median over
rounds of (the library's time) / (vaeflow's time of the same round). The floor is the arithmetic of the matrix products (dense, and without
the zeros of masked networks) at the rate of a 1024 x 1024 float32 product in the same run. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

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
TASKS = {"train": "training step", "log_prob": "log_prob", "sample": "1,000 samples"}
COMPILE = 5.0  # seconds of a sampler's compilation at the most


def work(name: str, pythons: dict[str, str], rounds: int, seconds: float) -> tuple[list[list[Any]], list[str], dict[str, str]]:
    """(rows of the table, goals that are missed, {library: versions}) of one work."""
    workers = {library: Worker(pythons[library], LIBRARIES[library], "speed", name) for library in HAVE[name] if pythons.get(library)}
    first = {library: worker.first for library, worker in workers.items()}
    tasks = ("train",) if name == "vae" else tuple(TASKS)
    found: dict[tuple[str, str], list[float]] = {(task, library): [] for task in tasks for library in workers}
    peak = {}
    for turn in range(rounds):
        for task in tasks:
            for library in list(workers)[turn % len(workers) :] + list(workers)[: turn % len(workers)]:
                answer = workers[library].ask(task, seconds)
                found[task, library].append(answer["ms"])
                peak[library] = answer["peak_mb"]
    for worker in workers.values():
        worker.close()
    rate = first["vaeflow"]["matmul_gflops"]
    rows, missed = [], []
    for task in tasks:
        for library in HAVE[name]:
            if library not in workers:
                rows.append([works.WORKS[name]["title"], TASKS[task], library, "absent", *[""] * 7])
                if (name, task, library) in GOALS:
                    missed.append(f"{name}, {TASKS[task]}: {library} is absent, its goal not measured")
                continue
            mine, own = found[task, "vaeflow"], found[task, library]
            ratio, low, high = common.middle([b / a for a, b in zip(mine, own, strict=True)])
            ms = common.middle(own)[0]
            floors = [works.gflop(name, task, triangular) / rate * 1e3 for triangular in (False, True)] if task != "sample" else None
            compiled = first[library]["compile"].get(task)
            rows.append(
                [
                    *(works.WORKS[name]["title"], TASKS[task], library, f"{ms:.2f}", f"{ratio:.2f}"),
                    f"{low:.2f} to {high:.2f}" if library != "vaeflow" else "",
                    f"{floors[0]:.1f}, {floors[1]:.1f}" if floors else "",
                    f"{100 * floors[0] / ms:.0f}%" if floors else "",
                    "" if compiled is None else f"{compiled:.1f}",
                    first[library]["parameters"],
                    f"{peak[library]:,.0f}",
                ]
            )
            goal = GOALS.get((name, task, library))
            if goal and ratio < goal:
                missed.append(f"{name}, {TASKS[task]}: {library} takes {ratio:.2f} times vaeflow's time, the goal is {goal:g}")
            if library == "vaeflow" and task == "sample" and (compiled or 0) > COMPILE:
                missed.append(f"{name}: the sampler compiles in {compiled:.1f} s, the goal is {COMPILE:g}")
    versions = {library: ", ".join(f"{k} {v}" for k, v in one["versions"].items()) for library, one in first.items()}
    return rows, missed, versions


def main() -> None:
    """Measure, print, write; exit 1 where a goal is missed."""
    p = common.parser(__doc__)
    for library in list(LIBRARIES)[1:]:
        p.add_argument(f"--{library.lower()}", default="", help=f"the python of an environment with {library}")
    p.add_argument("--works", nargs="*", default=list(works.WORKS), choices=list(works.WORKS))
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--seconds", type=float, default=1.0, help="of calls in each round")
    flags = p.parse_args()
    pythons = {"vaeflow": sys.executable} | {name: getattr(flags, name.lower()) for name in list(LIBRARIES)[1:]}
    rows, missed, versions = [], [], {}
    for name in flags.works:
        found, lacking, own = work(name, pythons, flags.rounds, flags.seconds)
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
    notes = (
        f"Medians over {flags.rounds} rounds in turns, float32, batches of "
        f"{', '.join(str(works.WORKS[name]['batch']) for name in flags.works)}; {told}. Goals missed: {'; '.join(missed) or 'none'}."
    )
    common.sheet("Speed beside other libraries", titles, rows, notes, flags.output, f"benchmarks.run --rounds={flags.rounds}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
