"""What every test shares: the CPU, and compiled programs, which are made quickly and kept on disk between processes and runs."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# Before jax is imported, and inherited by the subprocesses of tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Every operation of a lowered program has the frames of its Python call; one frame is enough.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "1")
# Most of the suite's time is XLA's: thousands of small programs that run once. With these a random normal compiles in a seventh of it.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()

gc.set_threshold(50_000)  # tracing makes many objects, few of them in cycles: with Python's 700 the collector takes a tenth of it


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """What a module leaves behind, most of it jax's caches, is alive to the end: the collector need not go through it again and again."""
    yield
    gc.collect()
    gc.freeze()
