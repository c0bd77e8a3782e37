"""What the benchmarks share: the machine they ran on, and the sheet that they print and write."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow.override import override
from vaeflow.runs.metrics import aligned_table
from vaeflow.runs.provenance import processor
from vaeflow.training import configure

ROOT = Path(__file__).resolve().parents[1]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with --output, the Markdown file that gets what is printed."""
    p = argparse.ArgumentParser(description=(doc or "").partition("\n")[0], allow_abbrev=False)
    p.add_argument("--output", type=Path, help="also write the numbers to this file, such as results/speed_overhead.md")
    return p


def load(name: str, changes: Mapping[str, Any]) -> ConfigDict:
    """The config `configs/x.py[:row]` with some values changed, as on the command line."""
    loaded = configure.load(name)
    for key, value in changes.items():
        override(loaded, key, str(value))
    return loaded


def machine() -> str:
    """Date, processor, load and versions: no number is worth anything without them."""
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "optax"))
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} CPU cores ({processor()}), load {load:.1f} when it ended,"
        f" Python {platform.python_version()}, {versions}, commit {commit()}"
    )


def commit() -> str:
    """The short commit of the working tree, marked when a tracked file of the library differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "vaeflow", "experiments", "configs", "benchmarks")
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with changes' if changed else ''}"


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, first quartile, third quartile)."""
    low, mid, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return mid, low, high


def sheet(title: str, titles: Sequence[str], rows: Sequence[Sequence[object]], notes: str, output: Path | None, command: str) -> None:
    """Print the table with its notes; into `output` as Markdown, with the command and the machine."""
    where = machine()
    print(f"\n{title}\n\n{aligned_table(titles, rows)}\n\n{notes}\n{where}")
    if output is not None:
        text = f"# {title}\n\nWritten by `python -m {command}`.\n\n{aligned_table(titles, rows, markdown=True)}\n\n{notes}\n\n{where}.\n"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
        print(f"written: {output}")
