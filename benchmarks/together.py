"""Cells per hour: G seeds of one config trained together, in one program, against one after another.

    python -m benchmarks.together --output=results/speed_together.md

Both ways are whole: the data loaded, programs traced and compiled, trained, validated and saved; the table and the figures at the end are
left out, as both ways make the same ones. They take turns, each in a process of its own. "cold": the persistent compilation cache is off,
so that every run by itself compiles its program. "warm": a first turn, which is not counted, has filled it. Exit status 1 below GOALS.
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
from vaeflow import experiment, fit, together, workdir

config, steps, folder, seeds = sys.argv[1], sys.argv[2], Path(sys.argv[3]), [int(s) for s in sys.argv[4].split(",")]
cells = []
for seed in seeds:
    c = common.load(config, {"seed": seed, "train.steps": steps, "devices.mapping": "jit"})
    directory = folder / str(seed)
    workdir.prepare(directory, c)
    cells.append(together.Cell(experiment.make(c, directory, cells[0].x.source if cells else None), directory))
if len(cells) > 1:
    assert not any(end.failed for end in together.fit_together(cells))
else:
    fit.fit(*cells[0])
"""


def seconds(config: str, steps: int, folder: Path, groups: list[list[int]], cache: Path | None) -> float:
    """Seconds of the processes that train each group of seeds."""
    env = os.environ | ({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "false"})
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    began = time.perf_counter()
    for group in groups:
        words = [sys.executable, "-c", RUN, config, str(steps), str(folder), ",".join(map(str, group))]
        subprocess.run(words, check=True, env=env, cwd=common.ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(kind: str, config: str, steps: int, seeds: int, turns: int) -> list[Any]:
    """One row of the table: the median ratio over turns."""
    ways = {"together": [list(range(seeds))], "one after another": [[seed] for seed in range(seeds)]}
    found: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns + (kind == "warm")):
            for way, groups in ways.items():
                cache = Path(folder) / "cache" if kind == "warm" else None
                took = seconds(config, steps, Path(folder) / f"{way} {turn}", groups, cache)
                if turn or kind == "cold":
                    found[way].append(took)
    ratio, low, high = common.middle([b / a for a, b in zip(*found.values(), strict=True)])
    hourly = [3600 * seeds / common.middle(took)[0] for took in found.values()]
    return [kind, seeds, steps, *(round(rate) for rate in hourly), f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"]


def main() -> None:
    """Measure, print, write; exit 1 below GOALS."""
    p = common.parser(__doc__)
    p.add_argument("--config", default="configs/digits_vae.py")
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--seeds", type=int, default=8)
    p.add_argument("--turns", type=int, default=3)
    flags = p.parse_args()
    rows = [measure(kind, flags.config, flags.steps, flags.seeds, flags.turns) for kind in GOALS]
    titles = ["cache", "seeds", "steps", "together [cells/hour]", "one after another [cells/hour]", "ratio", "quartiles"]
    notes = f"{flags.config}; whole processes from their start, without the table and the figures at the end."
    common.sheet("Cells trained together against one after another", titles, rows, notes, flags.output, "benchmarks.together")
    sys.exit(any(float(row[5]) < GOALS[row[0]] for row in rows))


if __name__ == "__main__":
    main()
