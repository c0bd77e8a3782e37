"""scripts/slurm.sh between stubs of srun and scontrol: what it starts, and when it queues the job again. No SLURM is needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "slurm.sh"


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def submit(tmp_path: Path, *, status: int = 0, state: str = "RUNNING", tasks: int = 1) -> tuple[int, str, str]:
    """(exit status, what srun started, what scontrol was told) of a job whose training ends with `status`."""
    executable(tmp_path / ".venv/bin/python", "exit 0")
    executable(tmp_path / "bin/srun", f'echo "$@" > started\nexit {status}')
    executable(tmp_path / "bin/scontrol", f'echo "$@" >> told\n[ "$1" = show ] && echo "   JobState={state} Reason=None"\nexit 0')
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": str(tasks),
    }
    done = subprocess.run(["bash", SCRIPT, "--config=c.py", "--workdir=runs/a b"], env=environment, capture_output=True, timeout=30)
    told = tmp_path / "told"
    return done.returncode, (tmp_path / "started").read_text(), told.read_text() if told.exists() else ""


@pytest.mark.parametrize(("tasks", "flag"), [(1, False), (8, True)])
def test_it_starts_one_process_per_task(tmp_path, tasks, flag):
    status, started, told = submit(tmp_path, tasks=tasks)
    assert status == 0 and not told
    assert started.rstrip().endswith("--config=c.py --workdir=runs/a b")
    assert ("experiments.train --distributed" in started) == flag


def test_a_stopped_run_is_queued_again_and_a_cancelled_or_failed_one_is_not(tmp_path):
    status, _, told = submit(tmp_path, status=143)
    assert status == 143 and told == "show job 7\nrequeue 7\n"
    (tmp_path / "told").unlink()
    assert "requeue" not in submit(tmp_path, status=143, state="CANCELLED")[2]
    assert submit(tmp_path, status=1)[::2] == (1, "show job 7\n")


def test_without_an_environment_it_says_what_to_do(tmp_path):
    environment = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "make install" in done.stderr
