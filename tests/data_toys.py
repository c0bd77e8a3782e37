"""Small data sets on disk for the tests: images, a TFDS set in array_record written without TensorFlow, GAS of the MAF paper."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.toys import sections
from vaeflow import data
from vaeflow.data.gas import convert

REAL_SETS = Path(__file__).resolve().parents[2] / "shared" / "data" / "tfds"


def section(**values: Any) -> Any:
    """config.data with these values and a batch that fits small data."""
    found: Any = sections().data
    found.update({"batch": 4, **values})
    return found


def load(**values: Any) -> data.Source:
    """The source of a section with these values, for the run's seed `seed` (0)."""
    seed = values.pop("seed", 0)
    return data.load(section(**values), seed)


def png(x: np.ndarray) -> bytes:
    """[H, W, C] uint8 as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).save(buffer, "png")
    return buffer.getvalue()


def save_png(path: Path, x: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(x))


def images(n: int, shape: tuple[int, ...] = (4, 3, 1), seed: int = 0, top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (n, *shape), dtype=np.uint8)


def write_tfds(root: Path, name: str, splits: Mapping[str, np.ndarray], classes: tuple[str, ...] = (), version: str = "1.0.0") -> Path:
    """A prepared set name/version under root: `image`, and with classes a `label` = row % len(classes)."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    folder = root / name / version
    folder.mkdir(parents=True)
    kinds = "tensorflow_datasets.core.features."
    shape = [str(n) for n in next(iter(splits.values())).shape[1:]]
    image = {"pythonClassName": kinds + "image_feature.Image", "image": {"shape": {"dimensions": shape}, "dtype": "uint8"}}
    features = {"image": image}
    if classes:
        features["label"] = {"pythonClassName": kinds + "class_label_feature.ClassLabel", "classLabel": {"numClasses": str(len(classes))}}
        (folder / "label.labels.txt").write_text("\n".join(classes) + "\n")
    everything = {"pythonClassName": kinds + "features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (folder / "features.json").write_text(json.dumps(everything))
    infos = []
    for split, x in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for i, row in enumerate(x):
            example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
            example.features.feature["image"].bytes_list.value.append(png(row))
            if classes:
                example.features.feature["label"].int64_list.value.append(i % len(classes))
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append({"name": split, "shardLengths": [str(len(x))], "numBytes": "1", "filepathTemplate": template})
    info = {"name": name, "version": version, "fileFormat": "array_record", "splits": infos}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def gas(root: Path, rows: int = 300, without: tuple[str, ...] = ()) -> Any:
    """The table of GAS, pickled by pandas and converted, with the DataFrame as result. Six sensors of their own; R1 correlates above 0.98
    with R5 alone, R5 with R7 and R8, R7 not with R8, so these two stay."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(2)
    own = {f"R{i}": rng.normal(size=rows) * i + 50 for i in (2, 3, 4, 6, 9, 10)}
    a, b, c = rng.normal(size=(3, rows))
    alike = {"R1": a + 0.17 * c, "R5": a, "R7": a + 0.15 * b, "R8": a - 0.15 * b}
    columns = {f"R{i}": (own | alike)[f"R{i}"] for i in range(1, 11)}
    frame = pandas.DataFrame({"Time": np.arange(rows) * 1.0, "Meth": a, "Eth": b} | columns).drop(columns=list(without))
    path = root / "gas" / "ethylene_CO.pickle"
    path.parent.mkdir(exist_ok=True)
    frame.to_pickle(path)
    convert(path)
    return frame
