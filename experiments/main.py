"""What all commands share: parsing --config with its overrides, errors as one line, the compilation cache."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vaeflow.config import load, override
from vaeflow.errors import RunFailed, Stopped, UserError


def run(main: Callable[[list[str]], None]) -> None:
    """main(argv) with every UserError as one line: exit code 2 for a wrong command, 1 for a run that failed,
    128 + signal for one that a signal stopped."""
    try:
        main(sys.argv[1:])
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, RunFailed) else 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parser(doc: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser whose --help ends with commands that run."""
    return argparse.ArgumentParser(
        description=doc, epilog=f"examples:\n{examples}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def parse_config(p: argparse.ArgumentParser, argv: list[str], prefix: str = "--config."):
    """(flags, [(key, text)]): `--config.a.b=1` and `--config.a.b 1` are overrides, the rest are the parser's own flags."""
    rest, overrides = [], []
    words = iter(argv)
    for word in words:
        if not word.startswith(prefix):
            rest.append(word)
            continue
        key, equals, text = word.removeprefix(prefix).partition("=")
        if not equals:
            text = next(words, None)
            if text is None:
                raise UserError(f"{word} needs a value: {word}=...")
        overrides.append((key, text))
    return p.parse_args(rest), overrides


def load_config(name: str, overrides: list[tuple[str, str]]):
    """The config `path.py[:row]` with its overrides."""
    config = load(name)
    for key, text in overrides:
        override(config, key, text)
    return config


def compilation_cache() -> None:
    """Keep compiled programs between runs (JAX_COMPILATION_CACHE_DIR, or the user's cache folder)."""
    import jax

    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vaeflow" / "xla"
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(default))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
