"""Continuous-time models beside torchcfm and zuko: the same work, each library in its own process and environment, in turns, in one run.

    python -m benchmarks.continuous --torchcfm=PEERS/bin/python --zuko=PEERS/bin/python --output=results/speed_continuous.md

benchmarks/peers/README.md says how the environment is made. Flow matching is on the same MLP, and on each library's own U-Net of the same
sizes; a draw has 50 evaluations, of Euler steps. FFJORD is vaeflow's CNF by 12 steps of rk4 and zuko's by an adaptive dopri5: the number of
its evaluations stands in the notes. A training step is what each library's own training does: vaeflow 16 steps in one dispatch, the others
an eager step with torch.optim.Adam. Times are medians over rounds; a ratio is the median over rounds of (the library's time) / (vaeflow's
time of the same round). The profile is vaeflow's: of a batch the loss alone and its gradient beside the whole step, and the floor of the
arithmetic that XLA counts at the rate of a 1024 x 1024 float32 product. Exit status 1 where a goal is missed.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import common
from benchmarks.peers import works
from benchmarks.peers.process import Worker

LIBRARIES = {"vaeflow": "with_vaeflow", "torchcfm": "with_torchcfm", "zuko": "with_zuko"}
PEER = {"mlp": "torchcfm", "unet": "torchcfm", "ffjord": "zuko"}
# (work, task): how many times vaeflow's time the other library must take at the least.
GOALS = {("mlp", "train"): 1.2, ("mlp", "sample"): 1.1}
TASKS = {"train": "training step", "sample": "1,000 samples"}
PARTS = {"loss": "loss of a batch", "gradient": "its gradient"}


def work(name: str, pythons: dict[str, str], rounds: int, seconds: float) -> tuple[list[list[Any]], list[list[Any]], list[str], list[str]]:
    """(rows of the table, rows of the profile, goals that are missed, notes) of one work."""
    title, peer = works.CONTINUOUS[name]["title"], PEER[name]
    here = [library for library in ("vaeflow", peer) if pythons[library]]
    workers = {library: Worker(pythons[library], LIBRARIES[library], "continuous", name) for library in here}
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds):
        found.setdefault(("product", "vaeflow"), []).append(workers["vaeflow"].ask("product", seconds / 4)["ms"])
        for task in PARTS:
            found.setdefault((task, "vaeflow"), []).append(workers["vaeflow"].ask(task, seconds / 4)["ms"])
        for task in TASKS:
            for library in here if turn % 2 else reversed(here):
                found.setdefault((task, library), []).append(workers[library].ask(task, seconds)["ms"])
    for worker in workers.values():
        worker.close()
    rows, missed = [], []
    for task in TASKS:
        for library in here:
            own, first = found[task, library], workers[library].first
            ratio, low, high = common.middle([b / a for a, b in zip(found[task, "vaeflow"], own, strict=True)])
            compiling = first["compile"].get(task)
            quartiles = f"{low:.2f} to {high:.2f}" if library != "vaeflow" else ""
            spent = "" if compiling is None else f"{compiling:.1f}"
            rows.append(
                [title, TASKS[task], library, f"{common.middle(own)[0]:.2f}", f"{ratio:.2f}", quartiles, spent, first["parameters"]]
            )
            if library == peer and (goal := GOALS.get((name, task))) and ratio < goal:
                missed.append(f"{name}, {TASKS[task]}: {library} takes {ratio:.2f} times vaeflow's time, the goal is {goal:g}")
        if peer not in here and (name, task) in GOALS:
            missed.append(f"{name}, {TASKS[task]}: {peer} is absent, its goal not measured")
    rate = 2e-6 * works.PRODUCT**3 / common.middle(found["product", "vaeflow"])[0]  # 10^9 operations a second
    whole, mflop = common.middle(found["train", "vaeflow"])[0], workers["vaeflow"].first["mflop"]
    profile = []
    for task, words in (PARTS | {"train": "training step"}).items():
        ms = common.middle(found[task, "vaeflow"])[0]
        # A step's products are those of the gradient; loops that XLA counts once (the solver's steps) have no floor.
        floor = mflop[task if task in PARTS else "gradient"] / rate if name != "ffjord" else None
        share = "" if floor is None else f"{100 * floor / ms:.0f}%"
        profile.append([title, words, f"{ms:.2f}", f"{100 * ms / whole:.0f}%", "" if floor is None else f"{floor:.2f}", share])
    versions = ["; ".join(f"{key} {value}" for key, value in worker.first["versions"].items()) for worker in workers.values()]
    return rows, profile, missed, [*versions, f"{name}: products at {rate:.0f} GFLOP/s"]


def main() -> None:
    """Measure, print, write; exit 1 where a goal is missed."""
    p = common.parser(__doc__)
    for library in list(LIBRARIES)[1:]:
        p.add_argument(f"--{library}", default="", help=f"the python of an environment with {library}")
    p.add_argument("--works", nargs="*", default=list(works.CONTINUOUS), choices=list(works.CONTINUOUS))
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--seconds", type=float, default=1.0, help="of calls in each round")
    flags = p.parse_args()
    pythons = {"vaeflow": sys.executable} | {name: getattr(flags, name) for name in list(LIBRARIES)[1:]}
    rows, profile, missed, notes = [], [], [], []
    for name in flags.works:
        for known, own in zip((rows, profile, missed, notes), work(name, pythons, flags.rounds, flags.seconds), strict=True):
            known.extend(own)
    titles = ("work", "task", "library", "ms", "ratio", "quartiles", "compile [s]", "parameters")
    parts = ("work", "vaeflow's time", "ms", "of the step", "floor [ms]", "floor of it")
    batches = ", ".join(str(works.CONTINUOUS[name]["batch"]) for name in flags.works)
    text = (
        f"Medians over {flags.rounds} rounds in turns, float32, batches of {batches}; {'; '.join(dict.fromkeys(notes))}."
        f" Goals missed: {'; '.join(missed) or 'none'}."
    )
    profiled = common.aligned_table(parts, profile, markdown=flags.output is not None)
    command = f"benchmarks.continuous --rounds={flags.rounds}"
    common.sheet("Speed of continuous-time models beside other libraries", titles, rows, f"{profiled}\n\n{text}", flags.output, command)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
