"""data.kind=arrays: arrays of a notebook, stored with their run where they are small, so that commands can read them.

arrays.npz    SPLIT.LEAF of every split: train.x, val.context, ...; levels, and the names of the classes. Nothing in it is unpickled
data.json     its SHA-256, as `arrays`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.data.formats import opened
from vaeflow.data.source import DataConfig, Source, Split, source
from vaeflow.errors import UserError
from vaeflow.runs import checksums
from vaeflow.runs.files import write_json, write_npz
from vaeflow.runs.workdir import read_json

NAME = "arrays.npz"
MOST = 2**26  # bytes of arrays that are stored with a run


def store(directory: Path, arrays: Source) -> bool:
    """Write the arrays of a source into a workdir that has a data.json. False: they are larger than MOST, and nothing is written."""
    found = {f"{name}.{leaf}": np.asarray(a) for name, split in arrays.splits().items() for leaf, a in split.arrays().items()}
    if sum(a.nbytes for a in found.values()) > MOST:
        return False
    names = {} if arrays.label_names is None else {"label_names": np.asarray(arrays.label_names, np.str_)}
    write_npz(directory / NAME, {**found, **names, "levels": np.asarray(arrays.levels)})
    about = read_json(directory / "data.json")
    write_json(directory / "data.json", {**about, "arrays": checksums.of_file(directory / NAME)})
    return True


def place(directory: Path) -> str:
    """The file of the arrays that are stored with a run; "": there is none. UserError: it is not the file that was written."""
    path = directory / NAME
    if not path.is_file():
        return ""
    about = read_json(directory / "data.json")
    if not isinstance(about, dict) or checksums.of_file(path) != about.get("arrays"):
        raise UserError(f"{path} does not have the SHA-256 in data.json: it is damaged, or was written by something else")
    return str(path)


def load(config: DataConfig, seed: int) -> Source:
    """The arrays that are stored with a run. UserError: there are none, or the file has others."""
    del seed
    if not config.path or Path(config.path).name != NAME:
        raise UserError(
            "data.kind='arrays': this run was trained on arrays of a notebook, which are not stored with it; "
            "give them there: run = vaeflow.load(DIRECTORY), run.evaluate(x)"
        )
    leaves: dict[str, dict[str, Any]] = {}
    with opened(Path(config.path), config._replace(kind="npz")) as stored:
        for key in stored.names:
            name, _, leaf = key.partition(".")
            if leaf in Split._fields:
                leaves.setdefault(name, {})[leaf] = stored.read(key)
        if "x" not in leaves.get("train", {}) or "levels" not in stored.names:
            raise UserError(f"data.path={config.path!r} does not have the arrays of a run; known: {NAME} in a run's workdir")
        names = tuple(map(str, stored.read("label_names"))) if "label_names" in stored.names else None
        levels = int(stored.read("levels"))
    return source({name: Split(**own) for name, own in leaves.items()}, levels, names)
