"""Small changes of arrays on the host, before training: one-hot, resize, standardise, ..."""

import math
from typing import Any

import jax
import numpy as np

from jaxd2l.data.dataset import first_outside
from jaxd2l.geometry import as_int


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Rows that are 1 at the label and 0 elsewhere.

    Shapes:
      labels: (...) integers in [0, num_classes).
      result: (..., num_classes) float32.

    Raises:
      TypeError: labels that are not integers.
      ValueError: a label outside [0, num_classes).

    Source: D2L 4.1.1.

    Example:
      >>> one_hot(np.array([1]), 5)
      array([[0., 1., 0., 0., 0.]], dtype=float32)
    """
    index = np.asarray(labels)
    count = as_int(num_classes, "one_hot: num_classes", 1)
    if index.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers, got {index.dtype}")
    bad = first_outside(index, count)
    if bad is not None:
        raise ValueError(
            f"one_hot: labels must be in [0, {count}), got {index.reshape(-1)[bad]} at {bad}"
        )
    return np.eye(count, dtype=np.float32)[index]


def flatten(x: np.ndarray) -> np.ndarray:
    """Each example as one vector.

    Shapes:
      x: (n, ...).
      result: (n, product of the other sizes), a view where NumPy can.

    Source: D2L 4.4.2 (28x28 images as vectors of 784).

    Example:
      >>> flatten(np.zeros((2, 28, 28, 1))).shape
      (2, 784)
    """
    if np.ndim(x) < 1:
        raise ValueError("flatten: x must have shape (n, ...), got a single number")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def standardize(
    x: np.ndarray,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    axis: int | tuple[int, ...] = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zero mean and unit standard deviation: z = (x - mean) / std; gives (z, mean, std).

    The statistics are taken over `axis` (0: for each feature of rows; (0, 1, 2): for each channel
    of images), in float64, with the variance divided by n. Give those of the training part back
    for test data. Where `std` is 0 (a constant column) the division is left out, so that the
    column becomes 0 and not NaN.

    Shapes:
      x: (n, ...) floating point; z: the same, of its dtype.
      mean, std: those of x with size 1 on `axis`; of the dtype of x.

    Raises:
      TypeError: x is not floating point.
      ValueError: NaN or infinite values, no examples, only one of `mean` and `std`, or statistics
        whose shape is not that of x with size 1 on `axis`.

    Source: D2L 5.7.4 (the variance there is divided by n - 1).

    Example:
      >>> z, mean, std = standardize(np.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> z
      array([[-1.,  0.],
             [ 1.,  0.]])
      >>> standardize(np.array([[5.0, 5.0]]), mean, std)[0]
      array([[3., 0.]])
    """
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"standardize: x must be floating point, got {x.dtype}")
    if x.size == 0:
        raise ValueError(f"standardize: x holds nothing, its shape is {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("standardize: x holds NaN or infinite values; fill them first")
    if (mean is None) != (std is None):
        raise ValueError("standardize: give both mean and std, or neither")
    if mean is None or std is None:
        # Divided by the largest value first, no square overflows, and a constant column is made
        # of exact ones: its spread is exactly 0, not the noise of a rounded mean.
        largest = np.abs(x).max(axis, keepdims=True).astype(np.float64)
        scale = np.where(largest > 0, largest, 1.0)
        parts = x / scale
        centre = parts.mean(axis, keepdims=True)
        spread = np.sqrt(np.square(parts - centre).mean(axis, keepdims=True))
        mean, std = (centre * scale).astype(x.dtype), (spread * scale).astype(x.dtype)
    else:
        mean, std = np.asarray(mean, x.dtype), np.asarray(std, x.dtype)
        axes = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
        wanted = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
        if mean.shape != wanted or std.shape != wanted:
            raise ValueError(
                f"standardize: mean and std must have shape {wanted}, "
                f"got {mean.shape} and {std.shape}"
            )
    return (x - mean) / np.where(std > 0, std, np.ones_like(std)), mean, std


def resize(images: np.ndarray, size: Any) -> np.ndarray:
    """Images of another size, by linear interpolation that is averaged where they get smaller.

    Args:
      size: (h, w) in pixels.

    Shapes:
      images: (n, h0, w0, c) floating point; result: (n, h, w, c).

    Raises:
      TypeError, ValueError: images of another rank or dtype, or a size below 1.

    Source: D2L 14.1 resizes Fashion-MNIST so; `jax.image.resize` with its default antialiasing.

    Example:
      >>> resize(np.array([0.0, 2.0, 4.0, 6.0], np.float32).reshape(1, 1, 4, 1), (1, 2)).ravel()
      array([1.4285715, 4.5714293], dtype=float32)
    """
    images = np.asarray(images)
    if images.ndim != 4 or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"resize: images must be floating point (n, h, w, c), got {images.dtype} {images.shape}"
        )
    height, width = (as_int(side, "resize: size", 1) for side in size)
    out = np.empty((len(images), height, width, images.shape[-1]), images.dtype)
    for start in range(0, len(images), 1024):  # the device need not hold all of them
        part = images[start : start + 1024]
        shape = (len(part), *out.shape[1:])
        out[start : start + 1024] = jax.image.resize(part, shape, "linear")
    return out


def permute_features(x: np.ndarray, seed: int) -> np.ndarray:
    """The features of every example in another order, the same for all: only locality is lost.

    A dense network learns such data as well as before; a convolutional one loses what it relies on.

    Shapes:
      x, result: (n, ...).

    Example:
      >>> permute_features(np.arange(8.0).reshape(2, 4), seed=0)
      array([[3., 2., 1., 0.],
             [7., 6., 5., 4.]])
    """
    flat = flatten(np.asarray(x))
    bits = np.random.PCG64(as_int(seed, "permute_features: seed", 0))
    order = np.argsort(bits.random_raw(flat.shape[1]), kind="stable")
    return flat[:, order].reshape(x.shape)
