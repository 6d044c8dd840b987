"""An assertion that two functions agree in value and in gradient, in both modes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# By mode, a random direction and the directions of the next order.
Directions = dict[str, tuple[Any, "Directions"]]
# A program that runs once, on small arrays: LLVM's optimisations would take most of the time.
QUICK = {"xla_backend_optimization_level": 0}
MODES = {"fwd": "forward mode", "rev": "reverse mode"}


def assert_gradients_match(
    f: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Any,
    order: int = 1,
    modes: Sequence[str] = ("fwd", "rev"),
    rtol: float | None = None,
    atol: float = 0.0,
) -> None:
    """Assert that `f(*args)` equals `reference(*args)` in values and in derivatives.

    For whoever writes a `custom_vjp` or `custom_jvp` rule or a fast kernel, with the plain function
    as reference. Compared are the outputs, `jax.jvp` along a random tangent and `jax.vjp` of a
    random cotangent (normal, always the same), each with respect to all of `args`; with `order` 2
    also the same of those derivatives, in all compositions of the modes. `f` and `reference` are
    each compiled as one program (on a CPU with few optimisations, which takes a third of the time).
    Use float64 (`jax.enable_x64`) to tell a small mistake from rounding.

    An element may be off by `rtol` times the largest finite magnitude in its array of the
    reference (sums round relative to their largest term), plus `atol`. `rtol` is the square root
    of the dtype's epsilon unless given, half of its digits: 1.5e-8 in float64, 3.5e-4 in float32,
    0.03 in float16, 0.09 in bfloat16. NaN always fails, infinities must be equal, and so must
    structures, shapes, dtypes and outputs that are not floating point.

    Args:
      args: pytrees of floating-point arrays. Close over labels, masks and options.
      order: of the highest derivative compared; 0 compares values alone.
      modes: `("rev",)` for a `custom_vjp`, which JAX cannot differentiate forward.

    Raises:
      AssertionError: the message says which mode and leaf, by how much and where.
      TypeError: an argument is not floating point.
      ValueError: no arguments, a negative `order` or tolerance, or an unknown mode.

    Example:
      >>> @jax.custom_vjp
      ... def square(x):
      ...     return x * x
      >>> square.defvjp(lambda x: (x * x, x), lambda x, g: (x * g,))     # forgets the 2
      >>> x = jnp.array([1.0, 2.0, 3.0])
      >>> assert_gradients_match(lambda x: x**2, jnp.square, x, order=2)
      >>> assert_gradients_match(square, jnp.square, x, modes=["rev"])
      Traceback (most recent call last):
      AssertionError: reverse mode, args[0] (3,) float32: 3 of 3 elements differ, most at [2]: got
      2.936214, wanted 5.8724279, off by 2.936214, allowed 0.0020275555
    """
    _check_call(args, order, modes, rtol, atol)
    inputs = {"args": jax.tree.map(jnp.asarray, args)}
    pair = {"f": _named(f), "reference": _named(reference)}
    shapes = {name: _noted(partial(jax.eval_shape, g), inputs, name) for name, g in pair.items()}
    _check_same_outputs(**shapes)
    directions = _directions(pair["reference"], inputs, order, modes, np.random.RandomState(0))
    options = QUICK if jax.default_backend() == "cpu" else None
    got, wanted = (
        _noted(
            jax.jit(partial(_derivatives, g, directions=directions), compiler_options=options),
            inputs,
            name,
        )
        for name, g in pair.items()
    )
    for (label, ours), (_, theirs) in zip(_arrays(got), _arrays(wanted), strict=True):
        fault = _difference(np.asarray(ours), np.asarray(theirs), rtol, atol)
        if fault:
            raise AssertionError(f"{label} {ours.shape} {ours.dtype}: {fault}")


def _check_call(args: Any, order: int, modes: Sequence[str], rtol: Any, atol: Any) -> None:
    what = "assert_gradients_match"
    leaves = jax.tree_util.tree_flatten_with_path(args)[0]
    if not leaves:
        raise ValueError(f"{what}: give the arguments to differentiate by, after f and reference")
    for path, leaf in leaves:
        if not _is_inexact(leaf):
            raise TypeError(
                f"{what}: args{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}, and "
                f"gradients need floating point; close over it: lambda x: f(x, labels)"
            )
    if order < 0:
        raise ValueError(f"{what}: order must be at least 0, got {order}")
    if isinstance(modes, str) or not modes or not set(modes) <= set(MODES):
        raise ValueError(f"{what}: modes must be some of ('fwd', 'rev'), got {modes!r}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"{what}: {name} must be at least 0, got {tolerance}")


def _noted(run: Callable[..., Any], inputs: Any, name: str) -> Any:
    try:
        return run(inputs)
    except Exception as error:
        error.add_note(f"in assert_gradients_match, where {name} is run or differentiated")
        raise


# Functions from here on take one dict, "args" and the directions of the derivatives taken so far,
# and give a dict of arrays by name. So a derivative is again such a function.
Named = Callable[[dict[str, Any]], dict[str, Any]]


def _named(f: Callable[..., Any]) -> Named:
    return lambda inputs: _by_name({"output": jax.tree.map(jnp.asarray, f(*inputs["args"]))})


def _by_name(tree: dict[str, Any]) -> dict[str, Any]:
    """The leaves of a dict of pytrees, {"args[0]['kernel']": array}."""
    return {
        path[0].key + jax.tree_util.keystr(path[1:]): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _inexact(g: Named) -> Named:
    """The outputs of `g` that have derivatives."""
    return lambda inputs: {name: y for name, y in g(inputs).items() if _is_inexact(y)}


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _derivative(g: Named, mode: str) -> Named:
    """The derivative of `g` by all its inputs, along the one more direction that it is given."""

    def split(inputs: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        last = _direction(len(inputs) - 1)
        return {name: x for name, x in inputs.items() if name != last}, inputs[last]

    def forward(inputs: dict[str, Any]) -> dict[str, Any]:
        primals, tangent = split(inputs)
        return jax.jvp(_inexact(g), (primals,), (tangent,))[1]

    def reverse(inputs: dict[str, Any]) -> dict[str, Any]:
        primals, cotangent = split(inputs)
        return _by_name(jax.vjp(_inexact(g), primals)[1](cotangent)[0])

    return {"fwd": forward, "rev": reverse}[mode]


def _direction(order: int) -> str:
    return f"direction {order}"


def _directions(
    g: Named, inputs: dict[str, Any], order: int, modes: Sequence[str], random: Any
) -> Directions:
    """A random direction for each derivative up to `order`."""
    if order == 0:
        return {}
    found = {}
    for mode in modes:
        like = inputs if mode == "fwd" else jax.eval_shape(_inexact(g), inputs)
        drawn = jax.tree.map(partial(_normal, random), like)
        more = {**inputs, _direction(len(inputs)): drawn}
        found[mode] = drawn, _directions(_derivative(g, mode), more, order - 1, modes, random)
    return found


def _normal(random: Any, like: Any) -> jax.Array:
    drawn = random.normal(size=like.shape)
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        drawn = drawn + 1j * random.normal(size=like.shape)
    return jnp.asarray(drawn, like.dtype)


def _derivatives(g: Named, inputs: dict[str, Any], directions: Directions) -> Any:
    """The outputs of `g` and, by mode, those of its derivatives: (outputs, {mode: the same})."""
    found = {}
    for mode, (direction, deeper) in directions.items():
        more = {**inputs, _direction(len(inputs)): direction}
        found[mode] = _derivatives(_derivative(g, mode), more, deeper)
    return g(inputs), found


def _arrays(result: Any, modes: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every array of `_derivatives` with its name, the lowest order first."""
    outputs, found = result
    for name, leaf in outputs.items():
        yield " of ".join(MODES[mode] for mode in reversed(modes)) + ", " * bool(modes) + name, leaf
    for mode, inner in found.items():
        yield from _arrays(inner, (*modes, mode))


def _check_same_outputs(f: dict[str, Any], reference: dict[str, Any]) -> None:
    if set(f) != set(reference):
        raise AssertionError(f"f gives {sorted(f)}, the reference {sorted(reference)}")
    for name, wanted in reference.items():
        got = f[name]
        if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
            raise AssertionError(
                f"{name} is {got.shape} {got.dtype}, wanted {wanted.shape} {wanted.dtype}"
            )


def _difference(got: Any, wanted: Any, rtol: float | None, atol: float) -> str:
    """What two arrays of one shape and dtype differ in, or nothing."""
    fine, allowed = got == wanted, 0.0
    inexact = _is_inexact(got)
    wide = np.complex128 if np.iscomplexobj(got) else np.float64
    epsilon = float(jnp.finfo(got.dtype).eps) if inexact else 0.0
    got, wanted = got.astype(wide), wanted.astype(wide)
    with np.errstate(invalid="ignore"):  # infinity - infinity
        off = np.abs(got - wanted)
    if inexact:
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        allowed = (epsilon**0.5 if rtol is None else rtol) * largest + atol
        fine |= off <= allowed
    if fine.all():
        return ""
    badness = np.where(fine, -1.0, np.where(np.isnan(off), np.inf, off))
    worst = np.unravel_index(badness.argmax(), badness.shape)
    place = f" at [{', '.join(map(str, worst))}]" if worst else ""
    return (
        f"{np.sum(~fine)} of {fine.size} elements differ, most{place}: got {got[worst]:.8g}, "
        f"wanted {wanted[worst]:.8g}, off by {off[worst]:.8g}, allowed {allowed:.8g}"
    )
