"""Whatever a caller may pass: odd sizes, dtypes, outputs and arguments, unknown primitives."""

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField, Window
from jaxd2l.geometry import receptive_field as of_windows

NOTHING = ReceptiveField((None,), 0)
PIXEL = ReceptiveField()


def convolve(
    weights: Any, x: jax.Array, padding: Any = "VALID", strides: tuple[int, int] = (1, 1)
) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, weights, strides, padding, dimension_numbers=dimensions)


def conv(x: jax.Array, k: int = 3, padding: Any = "VALID", stride: int = 1) -> jax.Array:
    """2-D, with constant weights of the dtype of x."""
    weights = jnp.ones((k, k, x.shape[-1], x.shape[-1]), x.dtype)
    return convolve(weights, x, padding, (stride, stride))


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 0, 4, 1), (0, 4, 4, 1), (1, 4, 4, 0), (0, 0, 0, 0)])
def test_axes_of_size_zero(shape: tuple[int, ...]) -> None:
    for f in (lambda x: x, lambda x: jnp.cumsum(x, 1)[:, ::-1] * 2, lambda x: jnp.pad(x, 1)):
        fields = receptive_field(f, shape)
        assert len(fields) == 2
        for unit in range(3):
            for field, n in zip(fields, shape[1:3], strict=True):
                seen = field.interval(unit)
                assert seen is None or seen[1] - seen[0] + 1 <= max(n, 1)


def test_axes_of_size_zero_inside() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.concatenate([x[:, :0], x, x[:, 4:4]], 1) + x[:, :0].sum(1, keepdims=True)

    assert receptive_field(f, (1, 4, 4, 1)) == (PIXEL, PIXEL)
    assert receptive_field(lambda x: x[:, :0].sum(1, keepdims=True), (1, 4, 4, 1))[0].size == 0
    empty = receptive_field(lambda x: x[:, 2:2], (1, 4, 4, 1))
    assert all(field.size <= 1 for field in empty)
    assert [f.size for f in receptive_field(lambda x: jnp.zeros((2, 0, 3)) * x.sum(), (1, 4, 4, 1))]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 5, 1), (1, 5, 1, 1)])
def test_axes_of_size_one(oracle: Any, shape: tuple[int, ...]) -> None:
    f = lambda x: conv(x, 3, "SAME") + x.mean((1, 2), keepdims=True)  # noqa: E731
    oracle.check(f, shape)
    rows, columns = receptive_field(lambda x: conv(x, 3, "SAME"), shape)
    for field, n in ((rows, shape[1]), (columns, shape[2])):
        assert field.size == 3 or n == 1
        assert field.interval(0)[0] <= 0 <= field.interval(0)[1]


def test_equal_sizes_do_not_confuse_axes(oracle: Any) -> None:
    """Height, width, channels and batch all 4: axes are followed, not sizes."""
    shape = (4, 4, 4, 4)
    cases: list[tuple[Callable[[jax.Array], jax.Array], tuple[int, int], tuple[int, int]]] = [
        (lambda x: x[:, 1:] + x[:, :-1], (1, 2), (2, 1)),
        (lambda x: x.transpose(0, 2, 1, 3), (2, 1), (1, 1)),
        (lambda x: x.transpose(3, 0, 1, 2), (2, 3), (1, 1)),
        (lambda x: jnp.cumsum(x.transpose(1, 0, 2, 3), 0), (0, 2), (4, 1)),
        (lambda x: jnp.cumsum(x.transpose(1, 0, 2, 3), 1), (0, 2), (1, 1)),
        (lambda x: x + x.mean((0, 3), keepdims=True), (1, 2), (1, 1)),
        (lambda x: jnp.einsum("nhwc,vw->nhvc", x, jnp.ones((4, 4))), (1, 2), (1, 4)),
        (lambda x: jnp.einsum("nhwc,cd->nhwd", x, jnp.ones((4, 4))), (1, 2), (1, 1)),
        (lambda x: x.reshape(16, 16)[::4].reshape(4, 1, 4, 4), (0, 2), (1, 1)),
        (lambda x: x.sum(0), (0, 1), (1, 1)),
        (lambda x: x.sum(1), (0, 1), (4, 1)),
        (lambda x: x[2], (0, 1), (1, 1)),
        (lambda x: x[:, 2], (0, 1), (1, 1)),
        (lambda x: jnp.sort(x, 2), (1, 2), (1, 4)),
        (lambda x: lax.scan(lambda c, row: (c + row, c), x[0], x)[1], (1, 2), (1, 1)),
        (lambda x: lax.scan(lambda c, row: (c + row, c + row), x[:, 0], jnp.moveaxis(x, 1, 0))[1],
         (0, 2), (4, 1)),
        (lambda x: x @ x.sum((0, 1, 2)), (1, 2), (4, 4)),
    ]  # fmt: skip
    for i, (f, out, sizes) in enumerate(cases):
        fields = oracle.check(f, shape, (1, 2), out)
        assert tuple(field.size for field in fields) == sizes, i
    # Rows added to columns: each unit (i, j) sees row i and row j, so along any axis all rows.
    both = oracle.check(lambda x: x + x.swapaxes(1, 2), shape)
    assert [field.size for field in both] == [4, 4]


# --- dtypes and what functions return ------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "bfloat16", "complex64", "int8"])
def test_dtypes(oracle: Any, dtype: str) -> None:
    def f(x: jax.Array) -> jax.Array:
        if dtype == "bool":
            return x[:, 1:] ^ x[:, :-1]
        return x[:, 1:] * 2 + x[:, :-1]

    fields = oracle.check(f, (1, 6, 3, 2), dtype=jnp.dtype(dtype), draws=8, exact=True)
    assert fields == (of_windows([Window(2)]), PIXEL)


def test_token_values_used_as_indices(oracle: Any) -> None:
    table = jnp.arange(50.0).reshape(10, 5)
    fields = oracle.check(
        lambda t: table[t][:, 1:] + table[t][:, :-1], (2, 6), (1,), dtype=np.int32, exact=True
    )
    assert fields == (of_windows([Window(2)]),)


def test_outputs_of_any_structure() -> None:
    def f(x: jax.Array) -> Any:
        return {
            "maps": [x, conv(x), (x[:, ::2], None)],
            "scalar": x.sum(),
            "constant": 3.0,
            "array": np.arange(4.0),
            "none": None,
            "fixed": jnp.zeros((1, 4, 4, 1)),
        }

    told = receptive_field(f, (1, 6, 8, 1))
    three, two = of_windows([Window(3)]), of_windows([Window(1, 2)])
    whole = (ReceptiveField.whole(6), ReceptiveField.whole(8))
    assert told["maps"][0] == (PIXEL, PIXEL)
    assert told["maps"][1] == (three, three)
    assert told["maps"][2] == ((two, PIXEL), None)
    assert told["scalar"] == whole
    assert told["constant"] == told["array"] == told["fixed"] == (NOTHING, NOTHING)
    assert told["none"] is None
    assert receptive_field(lambda x: None, (1, 4, 4, 1)) is None
    assert receptive_field(lambda x: [], (1, 4, 4, 1)) == []
    assert receptive_field(lambda x: (x, x), (1, 4, 4, 1)) == ((PIXEL, PIXEL),) * 2


def test_what_does_not_depend_on_the_input(oracle: Any) -> None:
    key = jax.random.key(0)
    for f in (
        lambda x: jnp.zeros_like(x),
        lambda x: jnp.ones((1, 4, 4, 1)) * x.shape[1],
        lambda x: jax.random.normal(key, x.shape),
        lambda x: lax.fori_loop(0, 3, lambda i, c: c + i, jnp.zeros((2, 2))),
        lambda x: np.zeros((1, 4, 4, 1)),
        lambda x: 1.0,
    ):
        assert receptive_field(f, (1, 4, 4, 1)) == (NOTHING, NOTHING)
    assert NOTHING.size == 0
    assert NOTHING.start is None


def test_parameters_that_are_zero_are_used() -> None:
    """A float array closed over is a parameter: a network with all weights zero sees the same."""
    kernel = jnp.zeros((3, 3, 1, 1))
    gate, matrix = jnp.zeros((1, 4, 1, 1)), jnp.zeros((6, 6))
    zero = np.zeros((3, 3, 1, 1), np.float32)
    for weights in (kernel, zero):
        fields = receptive_field(functools.partial(convolve, weights), (1, 6, 6, 1))
        assert fields == (of_windows([Window(3)]),) * 2
    assert receptive_field(lambda x: x[:, 1:-1] * gate, (1, 6, 6, 1))[0].size == 1
    assert (
        receptive_field(lambda x: jnp.tensordot(matrix, x[0], 1), (1, 6, 6, 1), (1,))[0].size == 6
    )


def test_dropout_and_randomness(oracle: Any) -> None:
    key = jax.random.key(0)

    def dropout(x: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, 0.5, x.shape)
        return conv(jnp.where(keep, x / 0.5, 0.0))

    fields = receptive_field(dropout, (1, 8, 8, 2))
    assert [field.size for field in fields] == [3, 3]
    oracle.check(dropout, (1, 8, 8, 2))
    noise = receptive_field(lambda x: x + jax.random.normal(key, x.shape), (1, 8, 8, 2))
    assert noise == (PIXEL, PIXEL)
    drawn = receptive_field(lambda x: jax.random.permutation(key, x, 1), (1, 8, 8, 2))
    assert drawn[1] == PIXEL


def test_not_a_number_and_infinity(oracle: Any) -> None:
    fields = oracle.check(lambda x: jnp.log(-jnp.abs(x)) / 0 + conv(x, 3, "SAME"), (1, 6, 6, 1))
    assert [field.size for field in fields] == [3, 3]
    assert receptive_field(lambda x: x * jnp.nan, (1, 6, 6, 1)) == (PIXEL, PIXEL)


# --- axes, batches -------------------------------------------------------------------------------


def test_axes_name_the_spatial_ones() -> None:
    def f(x: jax.Array) -> jax.Array:  # (h, w)
        return x[2:, 1:] + x[:-2, :-1]

    rows, columns = receptive_field(f, (6, 7), (0, 1))
    assert (rows.size, columns.size) == (3, 2)
    assert receptive_field(f, (6, 7), (1, 0)) == (columns, rows)
    assert receptive_field(f, (6, 7), [-1]) == (columns,)
    assert receptive_field(f, [6, np.int64(7)], np.array([0, 1])) == (rows, columns)
    batch_last = receptive_field(lambda x: x[1:] + x[:-1], (5, 3, 8), (0, -1))
    assert [field.size for field in batch_last] == [2, 1]


@pytest.mark.parametrize(
    ("shape", "axes", "told"),
    [
        ((6, 7), None, "axes"),
        ((), None, "axes"),
        ((6, 7), (), "axes"),
        ((1, 4, 4, 1), (1, 1), "axes"),
        ((1, 4, 4, 1), (1, -3), "axes"),
        ((1, 4, 4, 1), (4,), "axes"),
        ((1, 4, 4, 1), (-5,), "axes"),
        ((1, 4, 4, 1), (1.0,), "axes"),
        ((1, 4, 4, 1), (True,), "axes"),
        ((1, 4, 4, 1), 1, "axes"),
        ((1, 4, 4, 1), "12", "axes"),
        ((1, -4, 4, 1), None, "input_shape"),
        ((1, 4.0, 4, 1), None, "input_shape"),
        ((1, None, 4, 1), None, "input_shape"),
        (("1", 4, 4, 1), None, "input_shape"),
        (4, None, "input_shape"),
        (None, None, "input_shape"),
        ("1441", None, "input_shape"),
    ],
)
def test_wrong_arguments(shape: Any, axes: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        receptive_field(lambda x: x, shape, axes)


def test_what_is_not_a_function() -> None:
    for thing in (None, 3, "conv", jnp.ones(3)):
        with pytest.raises(TypeError, match=r"\bf\b"):
            receptive_field(thing, (1, 4, 4, 1))
    with pytest.raises(TypeError, match=r"dtype|data type|not understood"):
        receptive_field(lambda x: x, (1, 4, 4, 1), dtype="no such type")


def test_errors_of_the_function_come_through() -> None:
    def broken(x: jax.Array) -> jax.Array:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        receptive_field(broken, (1, 4, 4, 1))
    with pytest.raises(TypeError, match="argument"):
        receptive_field(lambda x, y: x, (1, 4, 4, 1))
    with pytest.raises(TypeError):
        receptive_field(lambda x: "text", (1, 4, 4, 1))
    with pytest.raises(jax.errors.TracerBoolConversionError):
        receptive_field(lambda x: x if x.sum() > 0 else -x, (1, 4, 4, 1))


# --- inside other transformations ----------------------------------------------------------------


def test_parameters_that_are_traced() -> None:
    """Called while something else is traced: the constants of the jaxpr are tracers."""
    told = []

    @jax.jit
    def outer(weights: jax.Array, start: jax.Array) -> jax.Array:
        told.append(receptive_field(lambda x: convolve(weights, x, "VALID", (2, 2)), (1, 9, 9, 1)))
        told.append(
            receptive_field(lambda x: lax.dynamic_slice_in_dim(x, start, 3, 1), (1, 9, 8, 1))
        )
        told.append(receptive_field(lambda x: x[:, start + jnp.arange(2)], (1, 9, 8, 1)))
        told.append(
            receptive_field(
                lambda x: lax.cond(start > 1, lambda x: x[:, 1:], lambda x: x[:, :-1], x),
                (1, 9, 8, 1),
            )
        )
        told.append(
            receptive_field(lambda x: lax.fori_loop(0, start, lambda i, x: x * 2, x), (1, 9, 8, 1))
        )
        return weights.sum()

    outer(jnp.ones((3, 3, 1, 1)), jnp.int32(1))
    assert told[0] == (of_windows([Window(3, 2)]),) * 2
    for sliced in told[1:3]:  # an unknown start: any three rows; columns as they are
        assert sliced == (ReceptiveField.whole(9), PIXEL)
    assert (told[3][0].interval(3), told[3][1]) == ((3, 4), PIXEL)
    assert told[4] == (PIXEL, PIXEL)


def test_under_vmap_and_grad() -> None:
    told = []

    def loss(w: jax.Array) -> jax.Array:
        told.append(receptive_field(lambda x: x[:, 1:] * w + x[:, :-1], (1, 5, 5, 1)))
        return w**2

    jax.grad(loss)(1.0)
    jax.vmap(loss)(jnp.ones(3))
    assert told == [(of_windows([Window(2)]), PIXEL)] * 2


# --- unknown primitives and effects --------------------------------------------------------------


def unknown_primitive(name: str) -> core.Primitive:
    primitive = core.Primitive(name)
    primitive.def_impl(lambda x: x)
    primitive.def_abstract_eval(lambda x: x)
    return primitive


def test_an_unknown_primitive_is_named_and_sees_everything() -> None:
    mystery = unknown_primitive("jaxd2l_mystery")
    with pytest.warns(UserWarning, match="jaxd2l_mystery"):
        fields = receptive_field(lambda x: conv(mystery.bind(x)), (1, 6, 8, 1))
    assert fields == (ReceptiveField.whole(6), ReceptiveField.whole(8))
    with pytest.warns(UserWarning, match="jaxd2l_mystery") as caught:
        receptive_field(lambda x: mystery.bind(mystery.bind(mystery.bind(x))), (1, 6, 8, 1))
    assert len(caught) <= 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a constant it does not matter what it does
        assert (
            receptive_field(lambda x: x + mystery.bind(jnp.ones(1)), (1, 6, 8, 1)) == (PIXEL,) * 2
        )
    inside = jax.jit(lambda x: lax.scan(lambda c, _: (mystery.bind(c), None), x, None, length=2)[0])
    with pytest.warns(UserWarning, match="jaxd2l_mystery"):
        assert receptive_field(inside, (1, 6, 8, 1))[0] == ReceptiveField.whole(6)


def test_callbacks_do_not_run() -> None:
    ran: list[Any] = []

    def host(x: Any) -> np.ndarray:
        ran.append(x)
        return np.asarray(x)

    def pure(x: jax.Array) -> jax.Array:
        return jax.pure_callback(host, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    with pytest.warns(UserWarning, match="pure_callback"):
        assert receptive_field(pure, (1, 6, 8, 1))[0] == ReceptiveField.whole(6)

    def noisy(x: jax.Array) -> jax.Array:
        jax.debug.callback(ran.append, x)
        jax.debug.print("{}", x.sum())
        return x * 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert receptive_field(noisy, (1, 6, 8, 1)) == (PIXEL, PIXEL)

    def counted(x: jax.Array) -> jax.Array:
        start = jax.pure_callback(host, jax.ShapeDtypeStruct((), jnp.int32), jnp.int32(0))
        return lax.dynamic_slice_in_dim(x, start, 2, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert receptive_field(counted, (1, 6, 8, 1))[0].size == 6
    assert not ran


def test_mutable_arrays_are_not_under_reported() -> None:
    """Writing into a reference is an effect: whatever is told must not be too little."""

    def f(x: jax.Array) -> jax.Array:
        ref = jax.new_ref(jnp.zeros_like(x))
        ref[...] = jnp.flip(x, 1)
        return ref[...]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, _ = receptive_field(f, (1, 6, 4, 1))
    for unit in range(6):
        lo, hi = rows.interval(unit)
        assert lo <= 5 - unit <= hi


def test_messages_say_what_to_do() -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        receptive_field(lambda x: x, (1, 4, 4, 1), (7,))
    assert re.search(r"7", str(error.value))
