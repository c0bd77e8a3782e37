"""How every command starts and ends: errors as one line, exit codes, the compilation cache."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vaeflow.config import import_files
from vaeflow.errors import RunFailed, Stopped, UserError
from vaeflow.runs import progress

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def run(main: Callable[[list[str]], None]) -> None:
    """main(argv) with every UserError as one line: exit code 2 for a wrong command, 1 for a run that failed,
    128 + signal for one that a signal stopped."""
    try:
        with progress.reporting():
            main(sys.argv[1:])
        sys.stdout.flush()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, RunFailed) else 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print("error: the device's memory is full; lower data.batch, or eval.batch and eval.chunk in evaluation", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `| head` has read enough: what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.filename is None and error.errno not in _DISK:
            raise
        print(f"error: {error.strerror}{'' if error.filename is None else f': {error.filename}'}", file=sys.stderr)
        sys.exit(1)


def set_up(imports: Sequence[Path]) -> None:
    """What comes before jax is imported and the config is loaded: the compilation cache, then the files of --import."""
    compilation_cache()
    import_files(imports)


def compilation_cache() -> None:
    """Keep compiled programs, the small ones too, in the user's cache folder; jax's own variables go before. Imports no jax."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vaeflow" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(default))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
