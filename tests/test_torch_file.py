"""The reader of PyTorch's legacy files: what it reads, what it refuses, and that nothing runs."""

from __future__ import annotations

import builtins
import io
import os
import pickle

import numpy as np
import pytest

from tests.torch_files import Attack, head, legacy, named, tensor
from vaeflow.errors import UserError
from vaeflow.evaluation import torch_file

RNG = np.random.default_rng


def read(content: bytes) -> dict[str, np.ndarray]:
    return torch_file.read(io.BytesIO(content))


ARRAYS = {
    "weight": RNG(0).normal(size=(3, 2, 5)).astype(np.float32),
    "permuted": np.asfortranarray(RNG(1).normal(size=(4, 3)).astype(np.float32)),
    "tracked": np.asarray(7, np.int64),
    "empty": np.zeros((0, 2), np.float32),
}


def test_a_legacy_file_is_read_back():
    found = read(legacy(ARRAYS))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(found[name], array)


EVERY_ATTACK = [
    (os.mkdir, ("marker",)),
    (os.system, ("mkdir marker",)),
    (builtins.eval, ("__import__('os').mkdir('marker')",)),
    (builtins.getattr, ("a", "upper")),
    (np.load, ("other.npy", None, True)),
]


@pytest.mark.parametrize(("function", "args"), EVERY_ATTACK, ids=lambda value: getattr(value, "__name__", ""))
def test_a_legacy_file_that_runs_code_is_refused_and_runs_nothing(tmp_path, monkeypatch, function, args):
    monkeypatch.chdir(tmp_path)
    module = os.name if function in (os.mkdir, os.system) else function.__module__
    call = pickle.dumps(Attack(function, *args), 2)[2:-1]  # without the protocol and the stop
    small = {"weight": np.ones(2, np.float32)}
    files = [pickle.dumps(Attack(function, *args), protocol) for protocol in (0, 2, 5)]  # in place of the magic number
    files += [head() + pickle.dumps(Attack(function, *args), protocol) for protocol in (0, 2, 5)]  # of the state dict
    files += [legacy(small, {"a": call}), legacy(small, {"a": tensor("1000", small["weight"], hooks=call)})]
    files += [legacy(small, {"a": tensor("1000", small["weight"], kind=named(module, function.__name__))})]
    for content in files:
        with pytest.raises(UserError, match=rf"^it names '[\w.]*{function.__name__}', which a state dict does not need; .*") as refused:
            read(content)
        assert "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["torch._utils _rebuild_parameter", "torch HalfStorage", "torch.storage _load_from_bytes", "builtins dict"]
)
def test_globals_that_are_harmless_but_not_listed_are_refused(name):
    with pytest.raises(UserError, match="it names"):
        read(head() + b"\x80\x02" + named(*name.split()) + b".")


ONE = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04 a zip file of newer versions", "not a state dict in PyTorch's legacy format"),
        (b"", "not a state dict in PyTorch's legacy format"),
        (head(magic=1) + b"\x80\x02N." * 2, "does not start with the magic number"),
        (head(little_endian=False), "big-endian"),
        (head() + pickle.dumps([1.0], 2) * 2, "not a dict of tensors"),
        (legacy({"a": ONE})[:-1], "not a state dict in PyTorch's legacy format: ValueError"),
        (legacy({"a": ONE}) + b"x", "continues after its last storage"),
        (legacy({"a": ONE}, {"b": tensor("other", ONE)}), "list of storages does not match"),
        (legacy({"a": ONE}, {"b": tensor("1000", np.ones(5, np.float32), 4)}), "larger than its storage"),
        (legacy({"a": ONE}, {"b": tensor("1000", np.broadcast_to(ONE, (1000, 4)), 4)}), "larger than its storage"),
        (legacy({"a": ONE}, {"a": tensor("1000", ONE, 5)}), "length differs"),
        (legacy({"a": ONE}, {"b": tensor("1000", ONE[::-1], 4)}), "not counts"),
        (legacy({"a": ONE}, {"b": named("torch", "FloatStorage") + b")R"}), "not a state dict in PyTorch's legacy format: TypeError"),
        (legacy({"a": ONE}, {"b": named("torch._utils", "_rebuild_tensor_v2") + b"}b"}), "not a state dict in PyTorch's legacy format"),
    ],
)
def test_damaged_files(content, why):
    with pytest.raises(UserError, match=why) as refused:
        read(content)
    assert "\n" not in str(refused.value)
    assert read(legacy(ARRAYS)).keys() == ARRAYS.keys()  # no file changes how the next one is read
