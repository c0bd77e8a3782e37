"""Checkpoints across processes: a full disk, kill -9, eight devices. Each script runs in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runs import environment
from vaeflow.runs.checkpoint_writer import Checkpoints, load_newest


def test_full_disk_is_one_line_and_what_was_there_stays(tmp_path: Path):
    """RLIMIT_FSIZE makes the kernel refuse the write in the background, as a full disk does."""
    script = """
import resource, sys
import jax, jax.numpy as jnp
from vaeflow.runs.checkpoint_writer import Checkpoints
from vaeflow.errors import RunFailed
c = Checkpoints(sys.argv[1])
small, large = {"x": jnp.ones(3)}, {"x": jax.random.normal(jax.random.key(0), (100_000,))}
c.save(1, small, {}), c.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
c.save(2, large, {})
try:
    c.wait()
except RunFailed as error:
    print(error)
assert c.latest() == 1 and c.restore(small)[0] == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
c.save(2, large, {})
assert c.wait() == 2
"""
    directory = tmp_path / "last"
    done = subprocess.run([sys.executable, "-c", script, directory], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    expected = f"could not save the checkpoint of step 2 in {directory}: File too large; the checkpoint of step 1 is intact\n"
    assert done.stdout == expected


def test_killed_at_any_moment_restores_the_newest_announced_step(tmp_path: Path):
    script = """
import sys
import jax, jax.numpy as jnp
from vaeflow.runs.checkpoint_writer import Checkpoints
c = Checkpoints(sys.argv[1])
x = jax.random.normal(jax.random.key(0), (300, 1000))
for step in range(1, 1000):
    c.save(step, {"x": x + step, "step": jnp.int32(step)}, {"step": step})
    print(c.wait(), flush=True)
"""
    x = jax.random.normal(jax.random.key(0), (300, 1000))
    process = [subprocess.Popen([sys.executable, "-c", script, tmp_path / str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)]
    for i, p in enumerate(process):
        assert p.stdout is not None
        announced = [int(p.stdout.readline()) for _ in range(3)]
        time.sleep(0.013 + 0.031 * i)
        p.send_signal(signal.SIGKILL)
        announced += [int(line) for line in p.stdout]
        p.wait()
        checkpoints = Checkpoints(tmp_path / str(i))
        lines: list[str] = []
        step, state, progress = checkpoints.restore({"x": x, "step": jnp.int32(0)}, lines.append) or pytest.fail()
        assert step >= announced[-1] and progress == {"step": step} and all("not committed" in line for line in lines)
        np.testing.assert_array_equal(state["x"], x + step)
        assert {p.name for p in checkpoints.directory.iterdir()} <= {str(step), str(step - 1)}
        checkpoints.save(step + 1, state, {})
        assert checkpoints.close() == step + 1


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from vaeflow.runs.checkpoint_writer import Checkpoints
mesh = Mesh(np.array(jax.devices()), ("devices",))
assert mesh.size == 8
put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
like = {"whole": put(jnp.zeros((16, 3))), "divided": put(jnp.zeros((16, 3)), "devices"), "step": put(jnp.int32(0))}
c = Checkpoints(sys.argv[1])
found = c.restore(like)
if found:
    assert found[0] == 1 and all(found[1][k].sharding == like[k].sharding for k in like)
    assert (np.asarray(found[1]["divided"]) == np.arange(48.0).reshape(16, 3) + 1).all()
c.save(2, jax.tree.map(lambda x, y: x + put(y, *x.sharding.spec), like, dict(whole=jnp.ones((16, 3)),
    divided=jnp.arange(48.0).reshape(16, 3) + 2, step=jnp.int32(2))), {"devices": 8})
assert c.close() == 2
"""


def test_one_device_to_eight_and_back(tmp_path: Path):
    host = {"whole": np.ones((16, 3), np.float32), "divided": np.arange(48, dtype=np.float32).reshape(16, 3), "step": np.int32(1)}
    one = jax.tree.map(jnp.asarray, {**host, "divided": host["divided"] + 1})
    checkpoints = Checkpoints(tmp_path / "last")
    checkpoints.save(1, one, {})
    checkpoints.close()
    done = subprocess.run([sys.executable, "-c", SHARDED, tmp_path / "last"], env=environment(8), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {**host, "divided": host["divided"] + 2, "step": np.int32(2)}
    step, state, progress = Checkpoints(tmp_path / "last").restore(one) or pytest.fail()
    assert (step, progress) == (2, {"devices": 8})
    for found in (state, (load_newest(tmp_path / "last") or pytest.fail()).state):
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
