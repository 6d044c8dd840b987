"""A data set is two arrays and the names of its classes; everything else here makes or cuts one."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


def first_outside(labels: np.ndarray, count: int) -> int | None:
    """Position of the first label outside [0, count), or None."""
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < count):
        return None
    return int(np.argmax((labels < 0) | (labels >= count)))


def _frozen(array: np.ndarray) -> np.ndarray:
    """A read-only view: a data set is not written to by mistake; the caller's array stays as is."""
    view = array.view()
    view.flags.writeable = False
    return view


def _finite(array: np.ndarray) -> bool:
    """All values finite, without a mask as large as the array (NaN survives min and max)."""
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # a value too large for float32 is reported
        array = array.astype(np.float32, copy=False)
    if not _finite(array):
        raise ValueError(
            f"Dataset: {what} hold NaN or infinite values (in float32); fill or drop them first"
        )
    return array


def _tokens(array: np.ndarray) -> np.ndarray:
    bad = first_outside(array, 2**31)
    if bad is not None:
        raise ValueError(
            f"Dataset: tokens must be 0 or more, and below 2**31; got {array.flat[bad]} at example "
            f"{bad // (array.size // len(array))}"
        )
    return array.astype(np.int32, copy=False)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Examples in host memory: `inputs`, `targets` and, for classification, the names of classes.

    Inputs are numbers or tokens, targets numbers, labels or tokens. Labels and tokens are
    range-checked here, once, because on a device an index out of range is silently clamped. The
    arrays are read-only; other floating types are converted to float32, other integers to int32.

    Shapes:
      inputs: (n, ...) float32, or (n, ...) int32 tokens.
      targets: (n,) int32 labels, (n, ...) int32 tokens, or (n, ...) float32.

    Raises:
      ValueError: no examples, unequal lengths, values that are not finite, a label outside
        [0, len(classes)) (or a negative label or token), repeated class names.
      TypeError: inputs or targets that are neither floating point nor integers; images of bytes.

    Example:
      >>> data = Dataset(np.zeros((3, 2)), np.array([0, 1, 1]), classes=("cat", "dog"))
      >>> data
      Dataset(3 examples, inputs (2,), 2 classes)
      >>> data.take([2, 0]).targets
      array([1, 0], dtype=int32)
    """

    inputs: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        inputs, targets = np.asarray(self.inputs), np.asarray(self.targets)
        if inputs.dtype.kind not in "fiu" or inputs.dtype == np.uint8:
            raise TypeError(
                f"Dataset: inputs must be floating point (or tokens, int32), got {inputs.dtype}; "
                f"convert them with .astype(np.float32), and scale images to [0, 1]"
            )
        if inputs.ndim < 1 or targets.ndim < 1 or len(inputs) != len(targets):
            raise ValueError(
                f"Dataset: inputs and targets must have the same length on their first axis, "
                f"got shapes {inputs.shape} and {targets.shape}"
            )
        if inputs.size == 0 or targets.size == 0:
            raise ValueError(
                f"Dataset: there must be at least one example and no empty axis, "
                f"got shapes {inputs.shape} and {targets.shape}"
            )
        inputs = _tokens(inputs) if inputs.dtype.kind in "iu" else _numbers(inputs, "inputs")
        if self.classes is not None:
            names = tuple(self.classes)
            if not names or not all(isinstance(name, str) for name in names):
                raise TypeError(f"Dataset: classes must be a tuple of names, got {self.classes!r}")
            if len(set(names)) != len(names):
                raise ValueError(f"Dataset: class names must differ, got {names}")
            object.__setattr__(self, "classes", names)
        if targets.dtype.kind in "iu" and targets.shape[1:] == (1,) and inputs.dtype.kind == "f":
            raise ValueError(
                f"Dataset: integer targets are labels of shape (n,), got {targets.shape}"
            )
        targets = self._check_targets(targets)
        object.__setattr__(self, "inputs", _frozen(inputs))
        object.__setattr__(self, "targets", _frozen(targets))

    def _check_targets(self, targets: np.ndarray) -> np.ndarray:
        if targets.dtype.kind in "iu":
            count = 2**31 if self.classes is None else len(self.classes)
            bad = first_outside(targets, count)
            if bad is not None:
                wanted = "0 or more" if self.classes is None else f"in [0, {count})"
                raise ValueError(
                    f"Dataset: labels must be {wanted}, got {targets.flat[bad]} at example "
                    f"{bad // (targets.size // len(targets))}"
                )
            return targets.astype(np.int32, copy=False)
        if targets.dtype.kind != "f":
            raise TypeError(
                f"Dataset: targets must be integer labels or floating point, got {targets.dtype}"
            )
        if self.classes is not None:
            raise TypeError(
                f"Dataset: with classes, targets must be integer labels, got {targets.dtype}"
            )
        return _numbers(targets, "targets")

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = (
            f"{len(self.classes)} classes"
            if self.classes is not None
            else f"targets {self.targets.shape[1:]} {self.targets.dtype}"
        )
        return f"Dataset({len(self)} examples, inputs {self.inputs.shape[1:]}, {kind})"

    def take(self, indices: Sequence[int] | np.ndarray) -> "Dataset":
        """The examples at `indices`, in that order, as a new data set (copies).

        Raises:
          TypeError: indices that are not integers (a mask of bools is not).
          ValueError: an index outside [0, n), or none at all.
        """
        index = np.asarray(indices)
        if index.size == 0:
            raise ValueError("Dataset.take: no indices given; a data set is never empty")
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise TypeError(
                f"Dataset.take: indices must be a list of integers, got {index.dtype} "
                f"of shape {index.shape}"
            )
        bad = first_outside(index, len(self))
        if bad is not None:
            raise ValueError(f"Dataset.take: index {index[bad]} is outside [0, {len(self)})")
        return Dataset(self.inputs[index], self.targets[index], self.classes)


def _unflatten(classes: tuple[str, ...] | None, arrays: Any) -> Dataset:
    dataset = object.__new__(Dataset)  # what was checked once; inside `jit` there are no values
    for name, value in zip(("inputs", "targets", "classes"), (*arrays, classes), strict=True):
        object.__setattr__(dataset, name, value)
    return dataset


# A data set goes through `jit` and `vmap` as its two arrays.
jax.tree_util.register_pytree_node(
    Dataset, lambda d: ((d.inputs, d.targets), d.classes), _unflatten
)


class Parts(NamedTuple):
    """The part of a data set to train on, and the part to test on."""

    train: Dataset
    test: Dataset
