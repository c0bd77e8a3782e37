"""The key streams of a run, by name. Every key is a function of the run's seed.

stream        key                                   used for
init          fold_in(key(seed), 1)                 initial parameters
noise, data   split(fold_in(key(seed), 2))          the loss's noise (the step and the device are folded in) and dynamic binarization (the
                                                    step and the slot are)
augmentation  fold_in(fold_in(data, step), 2^32-1)  flips and crops of training images; the slot is folded in
evaluation    fold_in(key(seed), 3)                 validation, numbers of a split, encodings; the example's index is folded in
figures       fold_in(evaluation, 2)                samples in figures (0 and 1: pictures and draws of evaluation/map_split.py)
first batch   fold_in(key(seed), 4)                 dynamic binarization of the batch that `init` sees
"""

from __future__ import annotations

import jax
from jax import Array

_AUGMENTATION = 2**32 - 1  # larger than any slot, which binarization folds into the same key
_INIT, _TRAINING, _EVALUATION, _FIRST_BATCH, _FIGURES = 1, 2, 3, 4, 2


def init_key(seed: int) -> Array:
    """The key of the initial parameters."""
    return jax.random.fold_in(jax.random.key(seed), _INIT)


def run_keys(seed: int) -> tuple[Array, Array]:
    """(key of the model's noise, key of dynamic binarization and augmentation) in training."""
    noise, data = jax.random.split(jax.random.fold_in(jax.random.key(seed), _TRAINING))
    return noise, data


def augmentation_key(data_step: Array) -> Array:
    """The key of flips and crops in a step, whose key of the data is `data_step`: the stream `data` with the step folded in."""
    return jax.random.fold_in(data_step, _AUGMENTATION)


def eval_key(seed: int) -> Array:
    """The key of everything in evaluation."""
    return jax.random.fold_in(jax.random.key(seed), _EVALUATION)


def figure_key(seed: int) -> Array:
    """The key of the samples in figures: apart from those of the numbers."""
    return jax.random.fold_in(eval_key(seed), _FIGURES)


def first_batch_key(seed: int) -> Array:
    """The key of the dynamic binarization of the batch that `init` sees."""
    return jax.random.fold_in(jax.random.key(seed), _FIRST_BATCH)
