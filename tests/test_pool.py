"""Pooling against brute force, PyTorch, lax and what the notes claim."""

import itertools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.test_util import check_grads

from jaxd2l.geometry import pool_output_size
from jaxd2l.ops import pool
from jaxd2l.ops.pool import (
    avg_pool,
    global_avg_pool,
    global_max_pool,
    k_max_pool,
    max_pool,
    min_pool,
)

GOLDEN = Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make_pool.py"))
# The matrix of the lecture notes whose 2x2 max-pool is printed as 6 8 3 4.
MATRIX = np.array([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], np.float32)
POOLS = [max_pool, min_pool, avg_pool]


def random(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def value_and_pullback(f, x, weights):
    y, pullback = jax.vjp(f, x)
    return y, pullback(weights)[0]


def windows(x, kernel, stride, padding, ceil_mode):
    """Each window of x (n, *spatial, c): its output index, its elements and its divisor by hand."""
    spatial = x.shape[1:-1]
    starts = []
    for n, k, s, (low, high) in zip(spatial, kernel, stride, padding, strict=True):
        ok = [  # floor: inside the padded input; ceil: begins in the input or the low padding
            i for i in range(-low, n + high, s) if (i < n if ceil_mode else i + k <= n + high)
        ]
        if ceil_mode:  # and no more windows than it takes to reach the end
            need = -(-max(n + low + high - k, 0) // s) + 1
            ok = ok[:need]
        starts.append(ok)
    for index in itertools.product(*(range(len(s)) for s in starts)):
        inside, padded = [slice(None)], 1
        for axis, i in enumerate(index):
            begin = starts[axis][i]
            n, end = spatial[axis], begin + kernel[axis]
            inside.append(slice(max(begin, 0), min(end, n)))
            padded *= min(end, n + padding[axis][1]) - begin
        yield index, x[tuple(inside)], padded


@st.composite
def configurations(draw):
    rank = draw(st.integers(1, 3))
    ints = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))  # noqa: E731
    kernel, stride = ints(1, 4), ints(1, 4)
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel)
    size = tuple(k + extra for k, extra in zip(kernel, ints(0, 4), strict=True))
    return size, kernel, stride, padding, draw(st.booleans())


@settings(max_examples=20)
@given(configurations())
def test_pools_equal_brute_force(configuration):
    size, kernel, stride, padding, ceil_mode = configuration
    x = random(2, *size, 2)
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    got = jax.jit(
        lambda x: {
            "max": max_pool(x, kernel, **options),
            "min": min_pool(x, kernel, **options),
            "avg": avg_pool(x, kernel, **options),
            "avg inside": avg_pool(x, kernel, **options, count_include_pad=False),
        }
    )(x)
    got = {name: np.asarray(y) for name, y in got.items()}
    out = tuple(
        pool_output_size(n, k, s, p, ceil_mode=ceil_mode)
        for n, k, s, p in zip(size, kernel, stride, padding, strict=True)
    )
    for name, y in got.items():
        assert y.shape == (2, *out, 2), name
    seen = 0
    axes = tuple(range(1, x.ndim - 1))
    for index, inside, padded in windows(x, kernel, stride, padding, ceil_mode):
        at = (slice(None), *index)
        total, count = inside.sum(axes, dtype=np.float64), inside[0, ..., 0].size
        np.testing.assert_array_equal(got["max"][at], inside.max(axes))
        np.testing.assert_array_equal(got["min"][at], inside.min(axes))
        np.testing.assert_allclose(got["avg"][at], total / padded, atol=1e-5)
        np.testing.assert_allclose(got["avg inside"][at], total / count, atol=1e-5)
        seen += 1
    assert seen == np.prod(out)


CASES = [("max", n, *MAKE["MAX"][n]) for n in MAKE["MAX"]]
CASES += [("avg", n, *MAKE["AVERAGE"][n]) for n in MAKE["AVERAGE"]]


@pytest.mark.parametrize(
    ("kind", "name", "shape", "arguments"), CASES, ids=[f"{c[0]} {c[1]}" for c in CASES]
)
def test_values_and_gradients_equal_pytorch(kind, name, shape, arguments, x64, strict_promotion):
    arguments = dict(arguments)
    window = arguments.pop("kernel_size")
    operation = {"max": max_pool, "avg": avg_pool}[kind]
    with np.load(GOLDEN / "pool.npz", allow_pickle=False) as golden:
        want, want_gradient = golden[f"{kind} {name}"], golden[f"{kind} {name} grad"]
    x, weights = MAKE["draw"](shape, want.shape)
    run = jax.jit(
        lambda x, w: value_and_pullback(lambda x: operation(x, window, **arguments), x, w)
    )
    y, gradient = run(x, weights)
    assert y.dtype == jnp.float64
    np.testing.assert_allclose(y, want, atol=1e-12)
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-12)


@pytest.mark.parametrize(("kind", "f"), [("max", global_max_pool), ("avg", global_avg_pool)])
def test_global_pools_equal_pytorch(kind, f, x64):
    x, weights = MAKE["draw"]((2, 5, 3, 4), (2, 4))
    y, gradient = jax.jit(lambda x, w: value_and_pullback(f, x, w))(x, weights)
    with np.load(GOLDEN / "pool.npz", allow_pickle=False) as golden:
        np.testing.assert_allclose(y, golden[f"global {kind}"], atol=1e-12)
        np.testing.assert_allclose(gradient, golden[f"global {kind} grad"], atol=1e-12)


def test_a_nan_makes_the_maximum_nan_as_in_pytorch():
    x = jnp.array([1.0, np.nan, 2, 3, 4, 5, np.nan, 6, np.nan]).reshape(1, 9, 1)
    weights = jnp.array([1.0, 10, 100]).reshape(1, 3, 1)

    @jax.jit
    def run(x):
        whole = [global_max_pool, global_avg_pool, lambda x: max_pool(x, 9)]
        whole.append(lambda x: k_max_pool(x, 3))
        return (
            value_and_pullback(lambda x: max_pool(x, 3), x, weights),
            min_pool(x, 3),
            [f(x) for f in whole],
        )

    (y, gradient), low, whole = run(x)
    with np.load(GOLDEN / "pool.npz", allow_pickle=False) as golden:
        np.testing.assert_array_equal(y.ravel(), golden["nan"])
        np.testing.assert_array_equal(gradient.ravel(), golden["nan grad"])
    assert np.isnan(low).ravel().tolist() == [True, False, True]
    for y in whole:
        assert np.isnan(y).all()


# What the notes print and claim.


def test_the_matrix_of_the_notes():
    x = MATRIX.reshape(1, 4, 4, 1)
    high, low, middle = jax.jit(lambda x: [f(x, 2).ravel() for f in POOLS])(x)
    assert high.tolist() == [6, 8, 3, 4]
    assert low.tolist() == [1, 2, 1, 0]
    assert middle.tolist() == [3.25, 5.25, 2, 2]


def test_rounding_up_is_a_choice():
    """C106, E12: floor is the default here and in PyTorch, ceil is Caffe's."""

    def sizes(ceil_mode):
        def three(x):  # AlexNet at 224, from its first convolution on
            a = max_pool(x, 3, stride=2, ceil_mode=ceil_mode)
            b = max_pool(a, 3, stride=2, ceil_mode=ceil_mode)
            return a, b, max_pool(b, 3, stride=2, ceil_mode=ceil_mode)

        return [y.shape[1] for y in jax.eval_shape(three, jnp.zeros((1, 54, 54, 1)))]

    assert sizes(False) == [26, 12, 5]
    assert sizes(True) == [27, 13, 6]
    # Pools may be padded: the notes deny it in one place and do it in another.
    padded = jax.eval_shape(
        lambda x: max_pool(x, 3, stride=2, padding=1), jnp.zeros((1, 110, 110, 1))
    )
    assert padded.shape == (1, 55, 55, 1)


def test_the_maximum_is_never_below_the_average_nor_that_below_the_minimum():
    """C114: max-pooling brightens an image, average pooling keeps its mean and blurs."""
    x = random(4, 8, 8, 3)
    high, low, middle = jax.tree.map(np.asarray, jax.jit(lambda x: [f(x, 2) for f in POOLS])(x))
    assert (high >= middle).all()
    assert (middle >= low).all()
    assert high.mean() > x.mean() + 0.5
    np.testing.assert_allclose(middle.mean(), x.mean(), atol=1e-6)
    assert middle.std() < 0.6 * x.std()  # blurred: independent values would give half


def test_min_pool_is_minus_the_maximum_of_minus_x_and_erodes():
    """C115."""
    x = random(2, 7, 7, 2)
    options = {"stride": 2, "padding": 1, "ceil_mode": True}
    both = jax.jit(lambda x: (min_pool(x, 3, **options), -max_pool(-x, 3, **options)))
    np.testing.assert_array_equal(*both(x))
    square = np.zeros((1, 9, 9, 1), np.float32)
    square[:, 2:7, 2:7] = 1  # 5x5 shrinks to 3x3, and grows to 7x7 under the maximum
    areas = jax.jit(lambda x: [f(x, 3, stride=1, padding=1).sum() for f in (min_pool, max_pool)])
    assert areas(square) == [9, 49]


@pytest.mark.parametrize("f", POOLS)
def test_pools_keep_the_channels_and_treat_each_by_itself(f):
    """C116, C117: no parameters, nothing mixes channels, so their number cannot change."""
    x = random(2, 6, 6, 5)
    f = jax.jit(f, static_argnums=1)
    y = f(x, 2)
    assert y.shape == (2, 3, 3, 5)
    alone = np.concatenate([f(x[..., c : c + 1], 2) for c in range(5)], axis=-1)
    np.testing.assert_array_equal(y, alone)


def test_global_average_is_a_mean_not_a_sum():
    """E65."""
    x = random(2, 3, 4, 10)
    np.testing.assert_allclose(global_avg_pool(x), x.mean((1, 2)), atol=1e-6)
    assert np.abs(global_avg_pool(x) - x.sum((1, 2))).max() > 1


@pytest.mark.parametrize("spatial", [(1,), (5,), (8,), (3, 4), (2, 3, 3)])
def test_global_pools_are_pools_with_one_window(spatial):
    x = random(2, *spatial, 3)
    run = jax.jit(
        lambda x: (
            global_max_pool(x),
            max_pool(x, spatial).reshape(2, 3),
            global_avg_pool(x),
            avg_pool(x, spatial).reshape(2, 3),
        )
    )
    high, high_window, mean, mean_window = run(x)
    np.testing.assert_array_equal(high, high_window)
    np.testing.assert_array_equal(high, x.max(tuple(range(1, x.ndim - 1))))
    np.testing.assert_allclose(mean, mean_window, atol=1e-6)


def test_k_max_pool_keeps_the_order_of_occurrence():
    """L16, L17."""
    x = random(3, 9, 4)
    every = jax.jit(lambda x: {k: k_max_pool(x, k) for k in (1, 4, 9)})(x)
    for k, y in every.items():
        for i, c in itertools.product(range(3), range(4)):
            chosen = np.sort(np.argsort(-x[i, :, c], kind="stable")[:k])
            np.testing.assert_array_equal(y[i, :, c], x[i, chosen, c])
    np.testing.assert_array_equal(every[1][:, 0], global_max_pool(x))
    np.testing.assert_array_equal(every[9], x)
    ties = jnp.array([2.0, 1, 2, 2]).reshape(1, 4, 1)
    _, gradient = value_and_pullback(lambda x: k_max_pool(x, 2), ties, jnp.ones((1, 2, 1)))
    assert gradient.ravel().tolist() == [1, 0, 1, 0]


# Maxima: ties, and every path of the implementation.


@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [((6, 6), 2, 2), ((7, 7), 3, 2), ((10, 10), 5, 5), ((25,), 11, 2), ((30,), 16, 1)],
    ids=["together", "axis by axis", "large", "wide", "power of two"],
)
def test_ties_give_the_whole_gradient_to_the_first_maximum(shape, window, stride):
    x = np.random.RandomState(0).randint(0, 2, (2, *shape, 2)).astype(np.float32)
    axes = len(shape)
    plain = lambda x: lax.reduce_window(  # noqa: E731
        x, -jnp.inf, lax.max, (1, *[window] * axes, 1), (1, *[stride] * axes, 1), "VALID"
    )
    weights = random(*jax.eval_shape(plain, x).shape)

    @jax.jit
    def run(x):
        fast = value_and_pullback(lambda x: max_pool(x, window, stride=stride), x, weights)
        return fast, value_and_pullback(plain, x, weights)

    (y, gradient), (want, want_gradient) = run(x)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-5)


def test_the_gradient_of_a_maximum_avoids_select_and_scatter():
    def loss(x):
        return jnp.sum(max_pool(x, 3, stride=2) ** 2)

    text = jax.jit(jax.grad(loss)).lower(jnp.zeros((1, 8, 8, 1))).as_text()
    assert "select_and_scatter" not in text
    assert "reduce_window" not in text


def test_padding_never_wins_a_maximum_nor_a_minimum():
    x = -1 - np.abs(random(1, 5, 5, 2))
    run = jax.jit(lambda x: [f(x, 3, stride=1, padding=1) for f in (max_pool, min_pool)])
    for y in (run(x)[0], -run(-x)[1]):
        assert np.isfinite(y).all()
        assert (y < 0).all()


# Transforms and dtypes.

OPERATIONS = {
    "max": lambda x: max_pool(x, 2),
    "max overlap": lambda x: max_pool(x, 3, stride=2, padding=1, ceil_mode=True),
    "max wide": lambda x: max_pool(x, (1, 9), stride=1, padding=(0, 4)),
    "min": lambda x: min_pool(x, 2),
    "avg": lambda x: avg_pool(x, 3, stride=2, padding=1, ceil_mode=True),
    "global avg": global_avg_pool,
    "global max": global_max_pool,
    "k-max": lambda x: k_max_pool(x[:, :, 0], 2),
}
each_operation = pytest.mark.parametrize("f", OPERATIONS.values(), ids=OPERATIONS)


def apart(shape):
    """Values all at least 0.1 apart, so that finite differences cross no tie."""
    n = int(np.prod(shape))
    return jnp.asarray(0.1 * np.random.RandomState(0).permutation(n).reshape(shape) - 2.0)


@each_operation
def test_gradients(f, x64):
    check_grads(jax.jit(lambda x: f(x) ** 2), (apart((1, 4, 5, 2)),), order=2, eps=1e-3)


@each_operation
def test_transforms_compose(f, strict_promotion):
    x, t = jnp.asarray(random(3, 4, 5, 2)), jnp.asarray(random(3, 4, 5, 2, seed=1))

    def square(x):
        return jnp.sum(f(x) ** 2)

    @jax.jit
    def run(x, t):
        y, pushed = jax.jvp(f, (x,), (t,))
        _, pullback = jax.vjp(f, x)
        gradient, curvature = jax.jvp(jax.grad(square), (x,), (t,))
        return {
            "y": y,
            "vmap": jax.vmap(lambda a: f(a[None])[0])(x),
            "forward": jnp.sum(y * pushed),
            "reverse": jnp.sum(pullback(y)[0] * t),
            "gradient": gradient,
            "vmap of grad": jax.vmap(jax.grad(lambda a: square(a[None])))(x),
            "curvature": curvature,
            "reverse over forward": jax.grad(lambda x: jax.jvp(square, (x,), (t,))[1])(x),
        }

    out = run(x, t)
    for a, b in [
        ("vmap", "y"),
        ("forward", "reverse"),
        ("vmap of grad", "gradient"),
        ("reverse over forward", "curvature"),
    ]:
        np.testing.assert_allclose(out[a], out[b], rtol=1e-4, atol=1e-5, err_msg=a)


@each_operation
def test_dtypes_are_kept(f, x64, strict_promotion):
    x = random(2, 4, 5, 2)
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64):
        assert jax.eval_shape(f, jnp.asarray(x, dtype)).dtype == dtype


def test_numpy_arrays_are_taken_in_float32():
    x = random(2, 4, 5, 2, dtype=np.float64)
    for f in OPERATIONS.values():
        assert jax.eval_shape(lambda f=f: f(x)).dtype == jnp.float32


def test_averages_of_half_precision_are_summed_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.0078125, jnp.bfloat16)  # a bfloat16 sum would stop at 256
    assert avg_pool(x, 64).ravel().tolist() == [1.0078125]
    assert global_avg_pool(x).ravel().tolist() == [1.0078125]


# Errors and assertions.


@pytest.mark.parametrize("f", POOLS)
def test_user_errors(f):
    name, x = f.__name__, jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match=rf"{name}: x must have shape .* got \(4, 4\)"):
        f(jnp.zeros((4, 4)), 2)
    with pytest.raises(TypeError, match=f"{name}: x must be floating point, got int32"):
        f(jnp.zeros((1, 4, 4, 1), int), 2)
    with pytest.raises(ValueError, match="kernel 5 is larger than the padded input 4") as error:
        f(x, 5)
    assert error.value.__notes__ == [f"in {name} of an input of shape (1, 4, 4, 1)"]
    with pytest.raises(ValueError, match=r"padding \(2, 2\) must be smaller than the window 2"):
        f(x, 2, padding=2)
    with pytest.raises(ValueError, match=r"window must be one int or one per axis \(2 axes\)"):
        f(x, (2, 2, 2))
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        f(x, 2, stride=0)
    with pytest.raises(TypeError, match=r"window must be an integer, got 2\.0"):
        f(x, 2.0)


@pytest.mark.parametrize("f", [global_avg_pool, global_max_pool])
def test_user_errors_of_global_pools(f):
    with pytest.raises(ValueError, match=rf"{f.__name__}: x must have shape .* got \(4, 4\)"):
        f(jnp.zeros((4, 4)))
    with pytest.raises(TypeError, match=f"{f.__name__}: x must be floating point, got bool"):
        f(jnp.zeros((1, 4, 1), bool))


def test_user_errors_of_pools_over_time():
    with pytest.raises(ValueError, match=r"k_max_pool: x must have shape \(n, t, c\)"):
        k_max_pool(jnp.zeros((1, 2, 2, 1)), 1)
    with pytest.raises(TypeError, match="k_max_pool: x must be floating point"):
        k_max_pool(jnp.zeros((1, 2, 1), int), 1)
    with pytest.raises(ValueError, match="k_max_pool: k must be at least 1, got 0"):
        k_max_pool(jnp.zeros((1, 2, 1)), 0)
    with pytest.raises(ValueError, match="k_max_pool: k must be at most the 2 time steps, got 3"):
        k_max_pool(jnp.zeros((1, 2, 1)), 3)


@pytest.mark.parametrize("f", POOLS)
def test_a_shape_that_geometry_does_not_predict_is_caught_while_tracing(f, monkeypatch):
    x = jnp.zeros((1, 6, 6, 1))
    jax.eval_shape(lambda x: f(x, 2), x)
    monkeypatch.setattr(pool, "_max_windows", lambda x, slides: x[:, :2, :3])
    monkeypatch.setattr(pool.lax, "reduce_window", lambda x, *_: x[:, :3, :2])
    with pytest.raises(AssertionError, match=rf"{f.__name__}: geometry predicts .* \(3, 3\)"):
        jax.eval_shape(lambda x: f(x, 2), x)
