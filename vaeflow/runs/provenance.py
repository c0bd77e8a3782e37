"""What a number stands on beside its config: the code and the machine."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path


def processor() -> str:
    """The CPU's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or platform.machine()


@functools.cache  # what is there later is not the code that this process runs
def source_state(limit: int = 20_000) -> dict[str, str]:
    """The commit of vaeflow's own repository and what differs from it (not in results/, which a table writes while it runs): the diff,
    its summary where it is longer than `limit` characters, and the names of new files of code. Empty outside of a repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, errors="replace", timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    top = git("rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root:  # installed somewhere inside another project's repository
        return {"commit": "", "status": "", "diff": ""}
    code = ("--", ".", ":!results")
    diff = git("diff", "HEAD", *code)
    if len(diff) > limit:
        diff = git("diff", "--stat", "HEAD", *code)
    new = git("ls-files", "--others", "--exclude-standard", "--", "vaeflow", "configs", "experiments")
    return {"commit": git("rev-parse", "HEAD"), "status": git("status", "--short"), "diff": "\n".join(filter(None, (diff, new)))}
