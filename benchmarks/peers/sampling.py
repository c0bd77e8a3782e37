"""Time of the sequential direction of autoregressive flows against D: vaeflow, FlowJAX, zuko, nflows.

    python -m benchmarks.peers.sampling --flowjax=PYTHON --zuko=PYTHON --nflows=PYTHON --output=results/peers_sampling.md

sample    drawing 1,000 samples from a MAF of 5 layers, nets 512x2 with relu, float32
density   the log-density of 1,000 points under an IAF of the same size: the same direction, with its log-determinant

Every library runs in a process of its own interpreter PYTHON, one after another, with its own MAF class, its own initial
weights and all the threads that it takes by itself: milliseconds are the median of 3 to 25 warm calls. JAX's are compiled (compile: trace,
lower and compile the sampler); zuko and nflows are run as they come, without gradients. vaeflow's time is that of its
incremental inversion; its Jacobi inversion stands beside it and depends on the weights. round trip is the largest
|inverse(forward(z)) - z| / (1 + |z|) of each, over 1,000 points: every library inverts what it samples.

Exit status 1 when at D=AIM_D FlowJAX takes less than AIM times vaeflow's time, or a compilation of vaeflow's sampler at that D
more than COMPILE seconds.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import common
from benchmarks.peers import process

DIMENSIONS = (2, 8, 16, 43, 64, 128, 256)
LAYERS, UNITS, POINTS = 5, 512, 1000
AIM, AIM_D, COMPILE = 10.0, 43, 5.0
LIBRARIES = ("flowjax", "zuko", "nflows")
OURS = "vaeflow, incremental"


def rows(answers: list[process.Answer]) -> list[list[Any]]:
    """A row for each D and library, in the order in which the libraries were asked, with the ratios to vaeflow's times."""
    ours = {answer["d"]: answer for answer in answers if answer["library"] == OURS}
    found = []
    for answer in sorted(answers, key=lambda answer: answer["d"]):
        base = ours[answer["d"]]
        times = [cell for task in ("sample", "density") for cell in (f"{answer[task]:.2f}", f"{answer[task] / base[task]:.1f}")]
        compiling = f"{answer['compile']:.1f}" if "compile" in answer else ""
        each = f"{answer['sample'] / answer['d']:.2f}"
        found.append([answer["d"], answer["library"], times[0], each, *times[1:], compiling, f"{answer['round_trip']:.0e}"])
    return found


def misses(answers: list[process.Answer]) -> list[str]:
    """What is not as fast as it is meant to be, where it was measured."""
    at = {answer["library"]: answer for answer in answers if answer["d"] == AIM_D}
    found = []
    if OURS in at and at[OURS]["compile"] > COMPILE:
        found.append(f"compilation took {at[OURS]['compile']:.1f} s at D={AIM_D}, above {COMPILE:g}")
    if OURS in at and "FlowJAX" in at and at["FlowJAX"]["sample"] < AIM * at[OURS]["sample"]:
        found.append(f"FlowJAX takes {at['FlowJAX']['sample'] / at[OURS]['sample']:.1f} times vaeflow's time at D={AIM_D}, below {AIM:g}")
    return found


def main() -> None:
    """Ask every library, print, write; exit 1 when an aim is missed."""
    p = common.parser(__doc__)
    for library in LIBRARIES:
        p.add_argument(f"--{library}", metavar="PYTHON", help=f"interpreter of an environment with {library}; left out without it")
    p.add_argument(
        "--d", type=int, nargs="+", default=DIMENSIONS, help=f"dimensions, at least 2; default: {' '.join(map(str, DIMENSIONS))}"
    )
    p.add_argument("--layers", type=int, default=LAYERS)
    p.add_argument("--units", type=int, default=UNITS, help=f"of each of the two hidden layers; default: {UNITS}")
    p.add_argument("--points", type=int, default=POINTS)
    flags = p.parse_args()
    pythons = {name: getattr(flags, name) for name in LIBRARIES if getattr(flags, name)}
    answers: list[process.Answer] = []
    for library, python in {"vaeflow": sys.executable, **pythons}.items():
        answers += process.ask(python, f"with_{library}", "sampling", flags.layers, flags.units, flags.points, *flags.d)
    titles = ["D", "library", "sample [ms]", "ms per dimension", "ratio", "density [ms]", "ratio", "compile [s]", "round trip"]
    versions = {}
    for answer in answers:
        used = ", ".join(f"{name} {version}" for name, version in answer["versions"].items())
        versions[answer["library"]] = f"{answer['library']} ({used}; {answer['threads']} threads)"
    notes = (
        f"{flags.layers} layers, nets {flags.units}x2, float32, {flags.points:,} points; medians of warm calls on the CPU, one library"
        " after another. ratio: over vaeflow's incremental inversion. sample: draws of a MAF; density: log-density under an IAF, the same"
        " direction with its log-determinant. compile: of the JAX samplers; the others are run without compilation."
        f" {'; '.join(versions.values())}."
    )
    changed = [f"--{name}={getattr(flags, name)}" for name in ("layers", "units", "points") if getattr(flags, name) != p.get_default(name)]
    changed += [f"--d {' '.join(map(str, flags.d))}"] if tuple(flags.d) != DIMENSIONS else []
    command = " ".join(["benchmarks.peers.sampling", *(f"--{name}=PYTHON" for name in pythons), *changed])
    common.sheet("The sequential direction of autoregressive flows", titles, rows(answers), notes, flags.output, command)
    missed = misses(answers)
    if missed:
        print("; ".join(missed), file=sys.stderr)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
