"""What may change in a run after training: the sections eval and sample, and where the data are.

Numbers made with other values than the run's own are stored in files whose names carry these values (`file_name`), and every file of
numbers records the section sample that it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow.config import DATA_PLACES, Overrides, plain
from vaeflow.errors import UserError
from vaeflow.override import override
from vaeflow.runs import workdir
from vaeflow.runs.files import text_of, with_values

# Sections and keys that every command accepts for a trained run.
EVAL_OVERRIDABLE = ("eval", "sample", *DATA_PLACES)
SECTIONS = ("eval", "sample")
# Keys of these sections that change no number: speed, memory, and how many samples a figure or a file has.
_NO_NUMBER = ("eval.batch", "eval.chunk", "sample.n")


def within(key: str, allowed: tuple[str, ...] = EVAL_OVERRIDABLE) -> bool:
    """True if the config key `key` is one of `allowed` or belongs to a section of it."""
    return key in allowed or key.partition(".")[0] in allowed


def check_key(key: str, what: str, allowed: tuple[str, ...] = EVAL_OVERRIDABLE) -> None:
    """UserError: the config key `key` is not one of those that may change after training. `what` starts the line."""
    if not within(key, allowed):
        known = ", ".join(f"config.{name}" if "." in name else f"config.{name}.*" for name in allowed)
        raise UserError(f"{what} cannot be changed in a run that is trained; known: {known}")


def read_overridden(directory: str | Path, overrides: Overrides) -> ConfigDict:
    """The config of a run with other values.

    Args:
        directory: the run's workdir.
        overrides: ("eval.k", "5000"), ("sample.temperature", "0.7"), ... in EVAL_OVERRIDABLE.

    Raises:
        UserError: this is no workdir, or a key is unknown or decides what is learned, or a value has the wrong type.
    """
    config = workdir.read_config(directory)
    for key, text in overrides:
        check_key(key, f"config.{key}")
        override(config, key, text)
    return config


def changed(run: Mapping[str, Any] | ConfigDict, config: Mapping[str, Any] | ConfigDict) -> list[str]:
    """KEY=VALUE of every value in the sections eval and sample of `config` that differs from `run` and changes a number, sorted."""
    before, after = _numbers(run), _numbers(config)
    return [f"{key}={text_of(after[key])}" for key in sorted(after) if key not in before or before[key] != after[key]]


def file_name(stem: str, run: ConfigDict, config: ConfigDict) -> str:
    """`stem` for numbers with the run's own values; STEM+eval.k=5000+sample.temperature=0.7 with what differs."""
    return with_values(stem, changed(run, config))


def artifact_name(stem: str, run: ConfigDict, config: ConfigDict) -> str:
    """`stem` for figures and encodings with the run's own values; STEM+KEY=VALUE for those of another checkpoint or other sampling options,
    the values that these depend on."""
    return with_values(stem, drawn_with(run, config))


def drawn_with(run: ConfigDict, config: ConfigDict) -> list[str]:
    """KEY=VALUE of the values that figures depend on, the checkpoint and the sampling options, where they are not the run's own."""
    return [text for text in changed(run, config) if text.startswith(("eval.params=", "sample."))]


def made_as_asked(results: Mapping[str, Any], asked: ConfigDict, run: ConfigDict) -> bool:
    """True if flat results were made with the sections eval and sample of `asked`, except for values that change no number.

    run: the config in the results' workdir, whose sampling options hold for results that do not record theirs.
    """
    made = {"eval": asked["eval"], "sample": {**plain(run["sample"]), **results.get("sample", {})}}
    if "eval" in results:
        made["eval"] = workdir.with_defaults("eval", results["eval"])
    elif results.get("density") == "bound" or results.get("k", asked["eval"].k) != asked["eval"].k:  # written before eval was stored
        return False
    return not changed(made, asked)


def sampled_with(run: ConfigDict, sample: Mapping[str, Any] | None) -> str:
    """The sampling options in which the section `sample` of a file of numbers differs from the run's own:
    "temperature=0.7 (the run's own: 1.0)". "" where none does; None: the file was written before the section was recorded."""
    own = plain(run["sample"])
    other = {key: value for key, value in sorted((sample or {}).items()) if key != "n" and (key not in own or own[key] != value)}
    return ", ".join(f"{key}={text_of(value)} (the run's own: {text_of(own.get(key, 'none'))})" for key, value in other.items())


def _numbers(config: Mapping[str, Any] | ConfigDict) -> dict[str, Any]:
    """{"eval.k": 100}: the values of the sections eval and sample that change a number."""
    found = {f"{section}.{key}": value for section in SECTIONS for key, value in plain(config[section]).items()}
    return {key: value for key, value in found.items() if key not in _NO_NUMBER}
