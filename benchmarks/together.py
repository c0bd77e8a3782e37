"""Cells per hour: G seeds of one config trained together, in one program, against one after another.

    python -m benchmarks.together --output=results/speed_together.md

All ways are whole: the data loaded, programs traced and compiled, trained, validated and saved; the table and the figures at the end are
left out, as all ways make the same ones. They take turns: together; one after another in one process, as `experiments.table` trains cells;
one after another in a process each, as a shell's loop over `experiments.train` does. "cold": the persistent compilation cache is off, so
that every run by itself compiles its program. "warm": a first turn, which is not counted, has filled it. Exit status 1 below GOALS, of the
ratio to either.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common

GOALS = {"warm": 1.2, "cold": 2.5}

RUN = """
import sys
from pathlib import Path
from benchmarks import common
from vaeflow.evaluation import evaluate
from vaeflow.training import loop, many_seeds, setup
from vaeflow.runs import workdir

config, steps, folder, seeds, how = sys.argv[1], sys.argv[2], Path(sys.argv[3]), [int(s) for s in sys.argv[4].split(",")], sys.argv[5]
cells = []
for seed in seeds:
    c = common.load(config, {"seed": seed, "train.steps": steps, "devices.mapping": "jit"})
    directory = folder / str(seed)
    workdir.prepare(directory, c)
    cells.append(many_seeds.Member(setup.make_experiment(c, directory, cells[0].x.source if cells else None), directory))
if how == "together":
    assert not any(end.failed for end in many_seeds.fit_together(cells, evaluate.validator))
else:
    for cell in cells:
        loop.fit(*cell, evaluate.validator)
"""


def seconds(config: str, steps: int, folder: Path, groups: list[list[int]], how: str, cache: Path | None) -> float:
    """Seconds of the processes that train each group of seeds, "together" or not."""
    env = os.environ | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "false"})
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    began = time.perf_counter()
    for group in groups:
        words = [sys.executable, "-c", RUN, config, str(steps), str(folder), ",".join(map(str, group)), how]
        subprocess.run(words, check=True, env=env, cwd=common.ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(kind: str, config: str, steps: int, seeds: int, turns: int) -> list[list[Any]]:
    """The rows of a kind of cache, one for each way to train one after another: the median ratios over turns."""
    ways = {"together": [list(range(seeds))], "one process": [list(range(seeds))], "a process each": [[seed] for seed in range(seeds)]}
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns + (kind == "warm")):
            for way, groups in ways.items():
                cache = Path(folder) / "cache" if kind == "warm" else None
                took = seconds(config, steps, Path(folder) / f"{way} {turn}", groups, way, cache)
                if turn or kind == "cold":
                    found[way].append(took)
    hourly = {way: round(3600 * seeds / common.middle(took)[0]) for way, took in found.items()}
    rows = []
    for way in list(ways)[1:]:
        ratio, low, high = common.middle([b / a for a, b in zip(found["together"], found[way], strict=True)])
        rows.append([kind, way, seeds, steps, hourly["together"], hourly[way], f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"])
    return rows


def main() -> None:
    """Measure, print, write; exit 1 below GOALS."""
    p = common.parser(__doc__)
    p.add_argument("--config", default="configs/digits_vae.py")
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--seeds", type=int, default=8)
    p.add_argument("--turns", type=int, default=3)
    flags = p.parse_args()
    rows = [row for kind in GOALS for row in measure(kind, flags.config, flags.steps, flags.seeds, flags.turns)]
    titles = ["cache", "one after another", "seeds", "steps", "together [cells/hour]", "apart [cells/hour]", "ratio", "quartiles"]
    notes = f"{flags.config}; whole processes from their start, without the table and the figures at the end."
    common.sheet("Cells trained together against one after another", titles, rows, notes, flags.output, "benchmarks.together")
    sys.exit(any(float(row[6]) < GOALS[row[0]] for row in rows))


if __name__ == "__main__":
    main()
