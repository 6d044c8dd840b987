"""Handwritten digits that come with scikit-learn: real data with nothing to download."""

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.geometry import as_int


def _interpolation(source: int, target: int) -> np.ndarray:
    """The (target, source) matrix of cubic interpolation (Catmull-Rom) between pixel centres."""
    place = (np.arange(target) + 0.5) * source / target - 0.5
    matrix = np.zeros((target, source))
    for offset in range(-1, 3):
        pixel = np.floor(place).astype(int) + offset
        d = np.abs(place - pixel)
        near = 1.5 * d**3 - 2.5 * d**2 + 1
        far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        inside = np.clip(pixel, 0, source - 1)  # the edge goes on beyond the image
        np.add.at(matrix, (np.arange(target), inside), np.where(d < 1, near, far))
    return matrix


def load_digits(size: int = 28) -> Dataset:
    """The 1797 handwritten digits of scikit-learn, enlarged from 8x8 to `size` x `size`.

    As in MNIST the digit fills 20/28 of the side, with an empty border, and values lie in [0, 1].
    Hold out a random choice of them: the last ones are harder for a network that never saw them
    than a random part of the same size is.

    Shapes:
      inputs: (1797, size, size, 1) float32; targets: (1797,) int32 in [0, 10).

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: `size` below 8.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), test part.

    Example:
      >>> load_digits()
      Dataset(1797 examples, inputs (28, 28, 1), 10 classes)
    """
    side = as_int(size, "load_digits: size", 8)
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError as error:
        raise ImportError(
            "load_digits needs scikit-learn: pip install 'jaxd2l[examples]'"
        ) from error
    source = bundled()
    inner = max(8, round(side * 20 / 28))
    matrix = _interpolation(8, inner)
    images = np.clip(matrix @ (source.images / 16.0) @ matrix.T, 0.0, 1.0)  # (n, inner, inner)
    low = (side - inner) // 2
    high = side - inner - low
    images = np.pad(images, ((0, 0), (low, high), (low, high)))
    return Dataset(
        images[..., None].astype(np.float32),
        source.target.astype(np.int32),
        tuple(str(digit) for digit in range(10)),
    )
