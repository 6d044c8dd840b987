"""The oracle behind these tests: what a function really reads, by changing its input.

One pixel of one axis is changed (all channels, all positions along the other axes) and the outputs
that change are noted. That is the definition of dependence; it knows nothing of jaxprs, and works
for sorting and integers as for convolutions.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l.analysis import receptive_field


def _draw(rng: np.random.Generator, shape: Sequence[int], dtype: Any, high: int) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        return rng.integers(0, high, shape).astype(dtype)
    if kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    return rng.normal(scale=3, size=shape).astype(dtype)


def _changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two results differ by more than rounding; NaN is equal to NaN."""
    if a.dtype.kind not in "fcV":
        return a != b
    if a.dtype.kind == "V":  # bfloat16
        a, b = a.astype(np.float32), b.astype(np.float32)
    wide = a.dtype in (np.float64, np.complex128)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= (1e-11 if wide else 1e-6) * (np.abs(a) + np.abs(b))
    return ~(near | (np.isnan(a) & np.isnan(b)) | (a == b))


def measured_support(
    f: Callable[[jax.Array], Any],
    shape: Sequence[int],
    axes: Sequence[int],
    out_axes: Sequence[int] | None = None,
    dtype: Any = np.float64,
    draws: int = 3,
    high: int = 5,
) -> list[np.ndarray]:
    """Per axis a boolean matrix (unit of the output, pixel of the input): which reads which."""
    rng = np.random.default_rng(0)
    base = _draw(rng, (draws, *shape), dtype, high)
    inputs = [base]
    for axis in axes:
        for pixel in range(shape[axis]):
            other = base.copy()
            slab = (slice(None),) * (axis + 1) + (slice(pixel, pixel + 1),)
            other[slab] = _draw(rng, other[slab].shape, dtype, high)
            inputs.append(other)
    with jax.enable_x64(np.dtype(dtype).itemsize >= 8):
        out = np.asarray(jax.jit(jax.vmap(jax.vmap(f)))(jnp.asarray(np.stack(inputs))))
    differs = _changed(out[:1], out[1:]).any(axis=1)  # (pixels of all axes, *output)
    matrices, first = [], 0
    for axis, unit_axis in zip(axes, out_axes or axes, strict=True):
        part = differs[first : first + shape[axis]]
        first += shape[axis]
        kept = unit_axis % (part.ndim - 1) + 1
        others = tuple(i for i in range(1, part.ndim) if i != kept)
        matrices.append(part.any(axis=others).T)
    return matrices


def hulls(matrix: np.ndarray) -> list[tuple[int, int] | None]:
    """The first and last pixel that each unit reads."""
    seen = [np.flatnonzero(row) for row in matrix]
    return [(int(s[0]), int(s[-1])) if s.size else None for s in seen]


def clipped(field: Any, unit: int, pixels: int) -> tuple[int, int] | None:
    """What `unit` sees of the image itself."""
    seen = field.interval(unit)
    if seen is None:
        return None
    lo, hi = max(seen[0], 0), min(seen[1], pixels - 1)
    return (lo, hi) if lo <= hi else None


def assert_field(field: Any, matrix: np.ndarray, exact: Any = False, what: Any = "") -> None:
    """No unit reads outside its interval, and the units in `exact` fill theirs."""
    wanted = np.broadcast_to(exact, len(matrix))
    for unit, seen in enumerate(hulls(matrix)):
        told = clipped(field, unit, matrix.shape[1])
        where = f"unit {unit} of {len(matrix)} reads {seen} of {matrix.shape[1]}: {field} {what}"
        if seen is not None:
            assert told is not None, where
            assert told[0] <= seen[0], where
            assert seen[1] <= told[1], where
            assert field.size >= seen[1] - seen[0] + 1, where
        if wanted[unit]:
            assert told == seen, f"exactly: {where}"


def check_measured(
    f: Callable[[jax.Array], Any],
    shape: Sequence[int],
    axes: Sequence[int] | None = None,
    out_axes: Sequence[int] | None = None,
    *,
    exact: Any = False,
    dtype: Any = np.float64,
    draws: int = 3,
    high: int = 5,
) -> tuple[Any, ...]:
    """Compare `receptive_field` with the measured support; returns the fields."""
    with jax.enable_x64(np.dtype(dtype).itemsize >= 8):
        fields = receptive_field(f, tuple(shape), axes, dtype=dtype)
    inner = tuple(range(1, len(shape) - 1)) if axes is None else tuple(a % len(shape) for a in axes)
    assert len(fields) == len(inner)
    matrices = measured_support(f, shape, inner, out_axes, dtype, draws, high)
    for field, matrix in zip(fields, matrices, strict=True):
        assert_field(field, matrix, exact)
    return fields


@pytest.fixture(scope="session")
def oracle() -> SimpleNamespace:
    """The functions above: a conftest cannot be imported."""
    return SimpleNamespace(
        support=measured_support, hulls=hulls, assert_field=assert_field, check=check_measured
    )
