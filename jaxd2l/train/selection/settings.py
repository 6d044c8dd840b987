"""Settings to try: all combinations of values, or points drawn from ranges."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.geometry import as_int
from jaxd2l.layers.core import fold_path

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A range of a hyper-parameter whose differences matter: a dropout rate, a width.

    Raises:
      ValueError: unless low < high, both finite.

    Example:
      >>> Uniform(0.0, 0.5).at(jnp.array([0.0, 0.5, 1.0])).tolist()
      [0.0, 0.25, 0.5]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"{type(self).__name__}: low must be below high and both finite, "
                f"got {self.low} and {self.high}"
            )

    def at(self, u: Any) -> Array:
        """The value at the share `u` in [0, 1] of the range, of the shape of `u`."""
        u = jnp.asarray(u)
        return jnp.clip(self.low + u * (self.high - self.low), self.low, self.high)


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
    """A range of a hyper-parameter whose ratios matter: a learning rate, a weight decay.

    Raises:
      ValueError: unless 0 < low < high, both finite.

    Example:
      >>> LogUniform(1e-4, 1.0).at(jnp.array([0.0, 0.5, 1.0])).round(6).tolist()
      [9.999999747378752e-05, 0.009999999776482582, 1.0]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"LogUniform: low must be above 0, got {self.low}")

    def at(self, u: Any) -> Array:
        u = jnp.asarray(u)
        low, high = math.log(self.low), math.log(self.high)
        return jnp.clip(jnp.exp(low + u * (high - low)), self.low, self.high)


Ranges = Mapping[str, Uniform]  # LogUniform is one too


def check_ranges(ranges: Any, where: str) -> None:
    """Refuse what is not a dict of ranges.

    Example:
      >>> check_ranges({"learning_rate": (0.1, 1.0)}, "random_search")
      Traceback (most recent call last):
      TypeError: random_search: ranges must be a dict such as {'learning_rate': LogUniform(1e-4, \
1.0), 'dropout': Uniform(0.0, 0.5)}, got {'learning_rate': (0.1, 1.0)}
    """
    good = isinstance(ranges, Mapping) and ranges
    if not good or not all(isinstance(r, Uniform) for r in ranges.values()):
        raise TypeError(
            f"{where}: ranges must be a dict such as {{'learning_rate': LogUniform(1e-4, 1.0), "
            f"'dropout': Uniform(0.0, 0.5)}}, got {ranges!r}"
        )


def grid(values: Mapping[str, Any]) -> dict[str, Array]:
    """All combinations of the values, as `sweep` takes them.

    The last name varies fastest, so results (h, ...) come back into the shape of the grid by
    `result.reshape(len(rates), len(decays), ...)`.

    Shapes: values {"learning_rate": (a,), "decay": (b,)}; result {...: (h,)}, h = a b.

    Raises:
      ValueError: no names, or values that are not a sequence of one number or more.

    Source: D2L 5.7.7 tunes by hand what a grid tries.

    Example:
      >>> settings = grid({"learning_rate": [0.1, 0.2], "decay": [0, 1, 2]})
      >>> settings["decay"].tolist(), settings["decay"].reshape(2, 3)[1].tolist()
      ([0, 1, 2, 0, 1, 2], [0, 1, 2])
    """
    arrays = {name: np.asarray(v) for name, v in values.items()}
    bad = {name: a.shape for name, a in arrays.items() if a.ndim != 1 or a.size == 0}
    if bad or not arrays:
        raise ValueError(
            f"grid: give each hyper-parameter a list of one value or more, got shapes {bad}"
        )
    crossed = np.meshgrid(*arrays.values(), indexing="ij")
    return {name: jnp.asarray(a.ravel()) for name, a in zip(arrays, crossed, strict=True)}


def random_search(ranges: Ranges, count: int, key: Array) -> dict[str, Array]:
    """Settings drawn independently from the ranges, as `sweep` takes them.

    Of few hyper-parameters that matter, a random search tries `count` values each; a grid of as
    many runs the d-th root of it. The draws of one name do not depend on the other names.

    Args:
      ranges: {"learning_rate": LogUniform(1e-4, 1.0), "dropout": Uniform(0.0, 0.5)}.
      count: how many settings.

    Shapes: result {name: (count,)}.

    Raises:
      TypeError: ranges that are none.
      ValueError: a count below 1.

    Source: Bergstra and Bengio 2012.

    Example:
      >>> settings = random_search({"learning_rate": LogUniform(1e-4, 1.0)}, 5, jax.random.key(0))
      >>> settings["learning_rate"].shape, bool((settings["learning_rate"] >= 1e-4).all())
      ((5,), True)
    """
    check_ranges(ranges, "random_search")
    count = as_int(count, "random_search: count", 1)
    return {
        name: span.at(jax.random.uniform(fold_path(key, (name,)), (count,)))
        for name, span in ranges.items()
    }
