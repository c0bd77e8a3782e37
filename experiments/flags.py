"""The flags of all commands: argparse with errors of one line, and --config.KEY=VALUE overrides."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from vaeflow.config import Overrides, keys, keys_named
from vaeflow.errors import UserError, nearest, question
from vaeflow.runs.overrides import within


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UserErrors that name the known flags. (argparse itself prints its usage, on several lines.)"""

    of_run = False  # the command reads a trained run, whose evaluation alone may be overridden

    def parse(self, argv: list[str], keys: Callable[[], list[str]] = list) -> argparse.Namespace:
        """The flags of `argv`. A misspelt one is named before a missing one is asked for.

        keys: returns the config keys that the command may override; it is called where a flag is unknown.
        """
        for word, after in pairwise([*argv, "--"]):
            name, equals, text = word.partition("=")
            if name.startswith("--") and name not in self._option_string_actions:
                raise self._unknown(name, text if equals else "..." if after.startswith("--") else after, keys)
        return self.parse_args(argv)

    def _unknown(self, flag: str, text: str, keys: Callable[[], list[str]]) -> UserError:
        """The error for an unknown flag: a flag of nearly the same name goes before config keys of that name."""
        name = flag.removeprefix("--").replace("-", "_")
        line = f"{flag} is not a flag of {self.prog.removeprefix('python -m ')}"
        flags = [known.removeprefix("--") for known in self.flags()]
        if found := [] if nearest(name, flags, cutoff=0.85) else keys_named(keys(), name):
            value = "..." if name.endswith("epochs") else text  # a number of epochs is not a number of steps
            return UserError(f"{line}; {question(name, [shlex.quote(f'--config.{key}={value}') for key in found])}")
        near = nearest(name, flags)
        return UserError(f"{line}; {question(name, [f'--{near}']) + ' ' if near else ''}known: {', '.join(self.flags())}")

    def flags(self) -> list[str]:
        """--help, --workdir, ..."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; known: {', '.join(self.flags())}")


ANY = Path(__file__).parents[1] / "configs" / "digits_vae.py"  # whose keys are proposed where no config is named
OVERRIDES = """
Of the run's config, values under config.eval and config.sample may be overridden, and data.dir, data.path, data.cache_dir; what was trained
stays as it was. Numbers made with other values are stored in files whose names carry them."""
IMPORT = (
    "a Python file of yours, which is executed first and registers kinds (models, layers, networks, data, checks), such as "
    "--import=own_kinds.py; may be repeated"
)


def parser(doc: str | None, examples: str, imports: bool = True, of_run: bool = False) -> Parser:
    """A parser whose --help ends with commands that run.

    imports: the command looks up kinds, and has the flag --import. of_run: it reads a trained run, whose evaluation may be overridden.
    """
    prog = f"python -m experiments.{Path(sys.argv[0]).stem}"
    epilog, plain = f"examples:\n{examples}{OVERRIDES if of_run else ''}", argparse.RawDescriptionHelpFormatter
    made = Parser(prog=prog, description=doc, epilog=epilog, formatter_class=plain, allow_abbrev=False)
    made.of_run = of_run
    if imports:
        made.add_argument("--import", dest="imports", action="append", default=[], type=path, metavar="FILE", help=IMPORT)
    return made


def path(text: str) -> Path:
    """A file or a folder on the command line, where a shell leaves the ~ of --workdir=~/runs as it is."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text).expanduser()


def parse_config(p: Parser, argv: list[str], prefix: str = "--config."):
    """(flags, [(key, text)]): `--config.a.b=1` and `--config.a.b 1` are overrides, the rest are the parser's own flags.

    With the prefix "--" every flag with a dot in its name is an override.
    """
    rest, overrides = [], []
    words = iter(argv)
    for word in words:
        if not word.startswith(prefix) or "." not in word.partition("=")[0]:
            rest.append(word)
            continue
        key, equals, text = word.removeprefix(prefix).partition("=")
        if not equals:
            text = next(words, "--")
            if text.startswith("--"):
                raise UserError(f"{word} needs a value: {word}=...")
        overrides.append((key, text))
    return p.parse(rest, lambda: _overridable(rest, p.of_run)), overrides


def _overridable(argv: list[str], of_run: bool) -> list[str]:
    """The keys that a command may override: of the config that --config names, or else of configs/digits_vae.py."""
    named = [word.removeprefix("--config=") for word in argv if word.startswith("--config=")]
    named += [after for word, after in pairwise(argv) if word == "--config"]
    from vaeflow.training.configure import load  # jax

    try:
        config = load(named[-1] if named else str(ANY))
    except UserError:  # an unknown flag is reported first
        config = load(str(ANY))
    return [key for key in keys(config) if not of_run or within(key)]


def given(flags: argparse.Namespace, overrides: Overrides) -> list[str]:
    """--import and the overrides of a command as words, for the line that repeats it."""
    return [*(f"--import={file}" for file in flags.imports), *(f"--config.{key}={text}" for key, text in overrides)]
