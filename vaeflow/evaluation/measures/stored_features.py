"""The Frechet distance of features that another program computed, for example those of Inception-v3, from an .npz file.

The file has the arrays `samples`, the held-out split's (`val` or `test`) and, for the floor, `train`, [N, F] each; see
features.from_npz. The samples are those of the file: whoever wrote it answers for their being this run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vaeflow.errors import UserError
from vaeflow.evaluation.features import StoredFeatures, from_npz
from vaeflow.evaluation.measures.measure import Evaluation, Finding
from vaeflow.evaluation.measures.sample_quality import frechet_findings


class StoredFeaturesSettings(NamedTuple):
    """path: the .npz file. sha256: of the file; another file is an error ("": any file, whose sha256 is printed)."""

    path: str = ""
    sha256: str = ""


def needs(run: Evaluation, settings: StoredFeaturesSettings) -> None:
    """UserError: there is no such file, its sha256 is another one, or it lacks `samples` or the split."""
    stored = _read(settings)
    for name in ("samples", run.name):
        if name not in stored.arrays:
            raise UserError(f"stored_features.path={settings.path!r} has no array {name!r}; it has {', '.join(stored.arrays)}")


def check(run: Evaluation, settings: StoredFeaturesSettings) -> dict[str, Finding]:
    """frechet, frechet_extrapolated, and their floors if the file has `train`."""
    stored = _read(settings)
    data = stored.arrays[run.name]
    out = frechet_findings(stored.arrays["samples"], data, f"samples, {len(data):,} {run.name}; {stored.name}")
    if "train" not in stored.arrays:
        return out
    return out | frechet_findings(stored.arrays["train"], data, f"training examples, {len(data):,} {run.name}; {stored.name}", "_floor")


def _read(settings: StoredFeaturesSettings) -> StoredFeatures:
    if not settings.path:
        raise UserError("stored_features.path='' names no .npz file")
    return from_npz(Path(settings.path).expanduser(), settings.sha256)
