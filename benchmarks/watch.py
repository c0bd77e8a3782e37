"""A command of experiments/ with its compilations counted: python -m benchmarks.watch counts.json experiments.train --config=...

What jax tells its monitoring listeners (names as in jax 0.10), one entry a program in the order of compilation:

    name      of the jitted function
    seconds   in the compiler, or to read the program back from the cache
    cached    whether the persistent cache had it. jax's own event `cache_misses` is sent only when an entry is written; here
              whatever is compiled counts as missed, whether it can be written or not
"""

from __future__ import annotations

import atexit
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.main import compilation_cache

ROOT = Path(__file__).resolve().parents[1]
_HIT, _COMPILED = "/jax/compilation_cache/cache_hits", "/jax/core/compile/backend_compile_duration"


class Watched(NamedTuple):
    """A finished command. `marks`: seconds from its start to the first line that matches each pattern, and to its end."""

    code: int
    output: str
    programs: list[dict[str, Any]]  # name, seconds, cached
    marks: dict[str, float]

    @property
    def missed(self) -> list[str]:
        """The programs that the cache did not have."""
        return [program["name"] for program in self.programs if not program["cached"]]


def watch(words: Sequence[str], counts: Path, env: Mapping[str, str], marks: Mapping[str, str] | None = None) -> Watched:
    """Run `words`, a module and its flags, in a process of its own; its standard output is read line by line."""
    command = [sys.executable, "-m", "benchmarks.watch", str(counts), *words]
    lines, seen, began = [], dict[str, float](), time.perf_counter()
    pipes: dict[str, Any] = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, **pipes) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            for name, pattern in (marks or {}).items():
                if name not in seen and re.search(pattern, line):
                    seen[name] = time.perf_counter() - began
    seen["end"] = time.perf_counter() - began
    programs = json.loads(counts.read_text()) if counts.exists() else []
    return Watched(process.returncode, "".join(lines), programs, seen)


def main() -> None:
    """Run the command here, as `python -m` would, and write the file when the process ends."""
    counts, module, *flags = sys.argv[1:]
    compilation_cache()  # before jax is imported, as the commands do
    import jax

    programs: list[dict[str, Any]] = []
    hits = 0

    def on_event(event: str, **_: Any) -> None:
        nonlocal hits
        hits += event == _HIT

    def on_duration(event: str, duration_secs: float, **words: str | int) -> None:
        nonlocal hits
        if event == _COMPILED:
            programs.append({"name": words.get("fun_name", ""), "seconds": duration_secs, "cached": bool(hits)})
            hits = 0

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
    atexit.register(lambda: Path(counts).write_text(json.dumps(programs)))
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
