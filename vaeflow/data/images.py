"""A folder of images: one subfolder per class, or all in one; PNG or JPEG, all of the same size.

    path/<class>/*.png            label: the class's place in alphabetical order
    path/*.png                    no labels
    path/train/..., val/, test/   the same, with splits of their own

Grey images become [H, W, 1], all others [H, W, 3]; levels 256. They are decoded once, into a memory-mapped cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vaeflow.data.binarize import ROWS, binarized
from vaeflow.data.cache import open_cache
from vaeflow.data.source import SPLITS, DataConfig, Source, Split, carve, encode_labels, require, source
from vaeflow.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg")
File = tuple[Path, str]  # an image and its class ("": none)


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=image_folder; see the module's docstring."""
    del seed
    root = Path(require(config, "path", "a folder of images")).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path={config.path!r} is not a folder; data.kind='image_folder' needs a folder of images")
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()} if (root / "train").is_dir() else {"train": root}
    files = {split: _list(folder) for split, folder in folders.items()}
    train = files["train"]
    files |= {split: [train[i] for i in index] for split, index in carve(len(train), config, files).items()}
    labelled = {bool(name) for found in files.values() for _, name in found}
    if len(labelled) > 1:
        raise UserError(f"data.path={config.path!r} has images both in class folders and outside; known layouts: <class>/*.png or *.png")
    numbers, names = (None,) * len(files), None
    if labelled == {True}:
        numbers, names = encode_labels([np.array([name for _, name in found]) for found in files.values()], "data.path")
    shape, first = _read(train[0][0]).shape, train[0][0]
    grey = config.binarize not in ("threshold", "static")
    splits = {}
    for (split, found), label in zip(files.items(), numbers, strict=True):
        x = _decode(root, split, [path for path, _ in found], shape, first, config)
        splits[split] = Split(x, label=label)
    return source(splits, 256 if grey else 2, names)


def _list(folder: Path) -> list[File]:
    """The images directly in a folder, and those in its subfolders, whose names are their classes; sorted."""

    def images(where: Path) -> list[Path]:
        return sorted(p for p in where.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())

    found = [(path, "") for path in images(folder)]
    found += [(path, sub.name) for sub in sorted(folder.iterdir()) if sub.is_dir() for path in images(sub)]
    if not found:
        raise UserError(f"data.path: {str(folder)!r} has no images ({', '.join(SUFFIXES)}), neither itself nor in its subfolders")
    return found


def _read(path: Path) -> np.ndarray:
    """One image as [H, W, C] uint8."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"data.path: the image {str(path)!r} has more than 8 bits per value (mode {image.mode}); convert it")
            x = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow's broken PNG chunks are SyntaxErrors
        raise UserError(f"data.path: the image {str(path)!r} cannot be read: {error}") from None
    return x if x.ndim == 3 else x[..., None]


def _decode(root: Path, split: str, paths: list[Path], shape: tuple[int, ...], first: Path, config: DataConfig) -> np.ndarray:
    """All images of a split, [N, H, W, C] uint8, black and white when the config fixes that, from the cache when it has them."""
    states = ((path, path.stat()) for path in paths)
    listing = "\n".join(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}" for path, state in states)
    digest = hashlib.sha256(f"{shape}\n{listing}".encode()).hexdigest()[:16]
    cache = open_cache(config.cache_dir, "image_folder", f"{root.resolve().name}-{digest}")

    def read(path: Path) -> np.ndarray:
        x = _read(path)
        if x.shape != shape:
            raise UserError(f"data.path: the images differ in size: {str(first)!r} is {shape}, {str(path)!r} is {x.shape}")
        return x

    def chunks() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(max(config.workers, 1)) as pool:  # Pillow decodes outside the interpreter's lock
            for start in range(0, len(paths), ROWS):
                yield np.stack(list(pool.map(read, paths[start : start + ROWS])))

    full = (len(paths), *shape)
    x = cache.array(split, full, np.uint8, chunks)
    if config.binarize not in ("threshold", "static"):
        return x
    method = config.binarize
    starts = range(0, len(paths), ROWS)
    return cache.array(
        f"{split}-{method}", full, np.uint8, lambda: (binarized(x[i : i + ROWS], 256, method, split, start=i) for i in starts)
    )
