"""Data made from known parameters, so that what was learnt can be compared with the truth."""

import math
from collections.abc import Sequence

import numpy as np

from jaxd2l.data.dataset import Dataset
from jaxd2l.geometry import as_int


def _generator(seed: int, what: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(as_int(seed, f"{what}: seed", 0)))


def _check_noise(noise: float, what: str) -> None:
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"{what}: noise is a standard deviation, 0 or more, got {noise}")


def synthetic_linear(
    seed: int,
    n: int = 1000,
    w: Sequence[float] = (2.0, -3.4),
    b: float = 4.2,
    noise: float = 0.01,
) -> Dataset:
    """Linear data: y = x w + b + e, with x ~ N(0, 1) and e ~ N(0, noise^2).

    Shapes:
      inputs: (n, len(w)) float32; targets: (n, 1) float32.

    Raises:
      ValueError: `n` below 1, no weights, or a negative noise.

    Source: D2L 3.3.1.

    Example:
      >>> data = synthetic_linear(seed=0, noise=0.0)
      >>> x, y = data.inputs, data.targets
      >>> np.allclose(2 * x[:, :1] - 3.4 * x[:, 1:] + 4.2, y, atol=1e-5)
      True
    """
    count = as_int(n, "synthetic_linear: n", 1)
    weights = np.asarray(w, np.float64)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"synthetic_linear: w must be a list of weights, got {w!r}")
    _check_noise(noise, "synthetic_linear")
    random = _generator(seed, "synthetic_linear")
    x = random.standard_normal((count, weights.size))
    y = x @ weights + b + noise * random.standard_normal(count)
    return Dataset(x.astype(np.float32), y[:, None].astype(np.float32))


def polynomial_features(x: np.ndarray, degree: int) -> np.ndarray:
    """The features x^i / i! for i = 0 .. degree.

    Shapes:
      x: (n,); result: (n, degree + 1) of float64.

    Example:
      >>> polynomial_features(np.array([2.0]), 3)
      array([[1.        , 2.        , 2.        , 1.33333333]])
    """
    powers = np.arange(as_int(degree, "polynomial_features: degree", 0) + 1)
    factorials = np.array([float(math.factorial(i)) for i in powers])
    return np.asarray(x, np.float64)[:, None] ** powers / factorials


def synthetic_polynomial(
    seed: int,
    n: int = 200,
    coefficients: Sequence[float] = (5.0, 1.2, -3.4, 5.6),
    degree: int | None = None,
    noise: float = 0.1,
) -> tuple[Dataset, np.ndarray]:
    """Polynomial data, y = sum_i c_i x^i / i! + e, with x ~ N(0, 1); gives (data, coefficients).

    The inputs are the features x^i / i! up to `degree` (by default that of the polynomial): a
    lower degree underfits, a higher one can overfit. The constant is the first feature.

    Shapes:
      inputs: (n, degree + 1) float32; targets: (n, 1) float32.
      coefficients: (degree + 1,) float32, the true ones for these features, then zeros.

    Raises:
      ValueError: `n` below 1, no coefficients, a degree below 0 or above 100, a negative noise.

    Source: D2L 3.6, older edition 4.4.4 (y = 5 + 1.2 x - 3.4 x^2/2! + 5.6 x^3/3!, noise 0.1;
    degree 3, 1 or 19).

    Example:
      >>> data, truth = synthetic_polynomial(seed=0, noise=0.0)
      >>> np.allclose(data.inputs @ truth[:, None], data.targets, atol=1e-4)
      True
    """
    count = as_int(n, "synthetic_polynomial: n", 1)
    true = np.asarray(coefficients, np.float64)
    if true.ndim != 1 or not true.size:
        raise ValueError(
            f"synthetic_polynomial: coefficients must be a list of numbers, got {coefficients!r}"
        )
    highest = true.size - 1
    top = highest if degree is None else as_int(degree, "synthetic_polynomial: degree", 0)
    if max(top, highest) > 100:
        raise ValueError(
            f"synthetic_polynomial: degree must be at most 100, got {max(top, highest)}"
        )
    _check_noise(noise, "synthetic_polynomial")
    random = _generator(seed, "synthetic_polynomial")
    x = random.standard_normal(count)
    features = polynomial_features(x, max(top, highest))
    y = features[:, : true.size] @ true + noise * random.standard_normal(count)
    known = np.zeros(top + 1, np.float32)
    known[: true.size] = true[: top + 1]
    data = Dataset(features[:, : top + 1].astype(np.float32), y[:, None].astype(np.float32))
    return data, known
