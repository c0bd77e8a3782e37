"""Text: the source, and samples as lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data_toys import load
from vaeflow import data
from vaeflow.data.text import decode
from vaeflow.errors import UserError
from vaeflow.figures import lines_of

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "text" / "tinyshakespeare.txt"
LINE = "the cat sat on\nthe mat. "


@pytest.fixture
def path(tmp_path) -> Path:
    file = tmp_path / "cat.txt"
    file.write_text(LINE * 40)
    return file


def test_windows_are_the_text_in_order_and_splits_are_contiguous(path):
    source = load(kind="text", path=str(path), size=8, val_fraction=0.1, test_fraction=0.2)
    assert (
        source.alphabet is not None
        and source.alphabet == tuple(sorted(set(LINE)))
        and source.levels == len(set(LINE))
        and source.train.x.dtype == np.uint8
    )
    text, n = LINE * 40, len(LINE) * 40
    ends = {"train": (0, round(0.7 * n)), "val": (round(0.7 * n), round(0.8 * n)), "test": (round(0.8 * n), n)}
    for name, (start, end) in ends.items():
        found = "".join(decode(source.split(name).x, source.alphabet))
        assert found == text[start : start + len(found)] and end - start - 8 < len(found) <= end - start
    assert data.summary(source)["alphabet"] == [*source.alphabet]
    assert "alphabet" not in data.summary(load(kind="digits"))
    assert lines_of(np.array([[0, 1]]), ("\n", "a")) == ["\\na"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (dict(size=0), "data.size=0: data.kind='text' needs the characters of an example"),
        (dict(size=500), "the split 'val' has 96 characters, fewer than data.size=500"),
        (dict(size=8, path="nowhere.txt"), "data.path='nowhere.txt' is no file"),
    ],
)
def test_wrong_text_is_one_line(path, values, said):
    with pytest.raises(UserError, match=said):
        load(kind="text", **{"path": str(path), "val_fraction": 0.1, **values})


def test_bytes_and_one_letter_are_refused(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "one").write_text("aaaa")
    for name, said in (("bytes", "is no text in UTF-8"), ("one", "has 1 different characters")):
        with pytest.raises(UserError, match=said):
            load(kind="text", path=str(tmp_path / name), size=2)


@pytest.mark.skipif(not REAL.exists(), reason="the file tinyshakespeare.txt is not there")
def test_the_real_file_has_65_characters():
    source = load(kind="text", path=str(REAL), size=64, val_fraction=0.05, test_fraction=0.05)
    assert source.levels == 65 and [len(s.x) for s in source.splits().values()] == [15_685, 871, 871]
    assert decode(source.train.x[:1], source.alphabet or ())[0].startswith("First Citizen:\nBefore we proceed")
