"""The bilinear primitive against lax, under every transform and on several devices."""

import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from jaxd2l.ops import conv_primitive
from jaxd2l.ops.conv_primitive import bilinear_conv, swap_channels
from jaxd2l.testing import assert_gradients_match


def lax_conv(x, w, **params):
    space = "DHW"[5 - x.ndim :] if x.ndim <= 5 else None
    names = ("N" + space + "C", space + "IO", "N" + space + "C")
    return lax.conv_general_dilated(x, w, dimension_numbers=names, **params)


def fast_jit(function):
    """Compiled with few optimisations: these tests compile much and run little."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def draw(seed, *shapes, dtype=np.float64):
    rs = np.random.RandomState(seed)
    return [jnp.asarray(rs.randn(*shape).astype(dtype)) for shape in shapes]


def options(stride, padding, lhs_dilation, rhs_dilation, groups, rank):
    return {
        "window_strides": (stride,) * rank,
        "padding": (padding,) * rank,
        "lhs_dilation": (lhs_dilation,) * rank,
        "rhs_dilation": (rhs_dilation,) * rank,
        "feature_group_count": groups,
    }


# stride, padding, lhs_dilation, rhs_dilation, groups, rank, kernel, size: every value of each
# meets every value of the others somewhere; sizes that leave a remainder with the stride included.
CONFIGS = [
    (1, (0, 0), 1, 1, 1, 1, 3, 7),
    (2, (1, 2), 1, 1, 2, 1, 3, 8),
    (3, (2, 0), 2, 2, 1, 1, 2, 6),
    (1, (1, 1), 1, 1, 1, 2, 3, 5),
    (2, (0, 1), 1, 1, 1, 2, 3, 6),
    (3, (1, 1), 1, 2, 2, 2, 2, 7),
    (2, (-1, 1), 2, 1, 2, 2, 3, 5),
    (1, (3, 3), 2, 2, 4, 2, 3, 4),
    (1, (0, -1), 3, 1, 1, 2, 2, 4),
    (2, (1, 0), 1, 1, 2, 3, 2, 4),
]


def example(config):
    stride, padding, lhs_dilation, rhs_dilation, groups, rank, k, size = config
    params = options(stride, padding, lhs_dilation, rhs_dilation, groups, rank)
    x, w = draw(0, (2, *(size,) * rank, 4), (*(k,) * rank, 4 // groups, 8))
    return params, x, w


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_values_and_all_derivatives_to_second_order_equal_lax(config, x64):
    params, x, w = example(config)
    ours, theirs = (functools.partial(f, **params) for f in (bilinear_conv, lax_conv))
    assert ours(x, w).dtype == jnp.float64
    assert_gradients_match(ours, theirs, x, w, order=2, rtol=1e-10)


@pytest.mark.parametrize("config", [CONFIGS[1], CONFIGS[6]], ids=str)
def test_batching_over_either_or_both_arguments_equals_lax(config, x64):
    params, x, w = example(config)
    xs, ws = draw(1, (3, *x.shape), (3, *w.shape))
    xs_inside, ws_inside = jnp.moveaxis(xs, 0, -1), jnp.moveaxis(ws, 0, 2)

    @fast_jit
    def everything(x, w, xs, ws, xs_inside, ws_inside):
        def of(function):
            def f(x, w):
                return function(x, w, **params)

            def grad(x, w):
                return jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1))(x, w)

            return (
                jax.vmap(f, (0, None))(xs, w),
                jax.vmap(f, (-1, None), -1)(xs_inside, w),
                jax.vmap(f, (None, 0))(x, ws),
                jax.vmap(f, (None, 2))(x, ws_inside),
                jax.vmap(f)(xs, ws),
                jax.vmap(f, (-1, 2))(xs_inside, ws_inside),
                jax.vmap(grad, (0, None))(xs, w),
                jax.vmap(grad, (None, 0))(x, ws),
                jax.vmap(grad)(xs, ws),
                jax.vmap(jax.vmap(f, (None, 0)), (0, None))(xs, ws),
            )

        return of(bilinear_conv), of(lax_conv)

    ours, theirs = everything(x, w, xs, ws, xs_inside, ws_inside)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_more_groups_than_are_split_take_the_grouped_path(x64):
    groups = conv_primitive._FEW_GROUPS + 1
    x, w = draw(2, (2, 5, groups), (3, 1, groups))
    params = options(1, (1, 1), 1, 1, groups, 1)
    text = jax.jit(lambda x, w: bilinear_conv(x, w, **params)).lower(x, w).as_text()
    assert f"feature_group_count = {groups}" in text
    np.testing.assert_allclose(bilinear_conv(x, w, **params), lax_conv(x, w, **params), atol=1e-12)


def test_check_grads(x64):
    params, x, w = example(CONFIGS[1])
    check_grads(jax.jit(lambda x, w: jnp.sin(bilinear_conv(x, w, **params))), (x, w), order=2)


def test_further_transforms_equal_lax(x64):
    params = options(2, (1, 1), 1, 1, 1, 2)
    x, w, c = draw(3, (2, 5, 5, 2), (3, 3, 2, 2), (2, 3, 3, 2))

    @fast_jit
    def everything(x, w, c):
        def of(function):
            def f(x, w):
                return function(x, w, **params)

            def loss(w):
                return (f(jnp.sin(f(x, w).repeat(2, 1).repeat(2, 2)), w) ** 2).sum()

            _, linear = jax.linearize(f, x, w)
            stepped, values = lax.scan(
                lambda w, _: (w - 0.01 * jax.grad(loss)(w), loss(w)), w, None, length=3
            )
            return {
                "jacfwd": jax.jacfwd(f, 1)(x, w),
                "jacrev": jax.jacrev(f, 0)(x, w),
                "hessian": jax.hessian(loss)(w),
                "checkpoint": jax.grad(jax.checkpoint(loss))(w),
                "scan": (stepped, values),
                "grad of scan": jax.grad(
                    lambda w: lax.scan(
                        lambda w, _: (w - 0.01 * jax.grad(loss)(w), None), w, None, length=2
                    )[0].sum()
                )(w),
                "linearize": linear(x * 2, w * 3),
                "linear_transpose": jax.linear_transpose(lambda x: f(x, w), x)(c),
                "cond": lax.cond(x.sum() > 100, loss, lambda w: 2 * loss(w), w),
                "map": lax.map(lambda x: f(x[None], w), x),
            }

        return of(bilinear_conv), of(lax_conv)

    ours, theirs = everything(x, w, c)
    for name in theirs:
        for a, b in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(theirs[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=name)


def primitives(jaxpr):
    return [e.primitive.name for e in jaxpr.jaxpr.eqns]


def test_the_primitive_is_closed_under_transposition():
    x, w = draw(4, (1, 4, 4, 2), (3, 3, 2, 2), dtype=np.float32)
    params = options(1, (1, 1), 1, 1, 1, 2)

    def loss(x, w):
        return (bilinear_conv(x, w, **params) ** 2).sum()

    names = primitives(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, w))
    assert names.count("conv") == 3
    assert "conv_general_dilated" not in names
    # and every convolution that reaches the compiler has channels last
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, w).as_text()
    assert text.count("dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]") == 3
    assert text.count("stablehlo.convolution") == 3


def test_eager_jit_and_disable_jit_agree_and_keep_dtypes():
    params = options(1, (1, 1), 1, 1, 1, 1)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        x, w = (a.astype(dtype) for a in draw(5, (2, 6, 3), (3, 3, 4)))
        eager = bilinear_conv(x, w, **params)
        compiled = jax.jit(lambda x, w: bilinear_conv(x, w, **params))(x, w)
        with jax.disable_jit():
            slow = bilinear_conv(x, w, **params)
        assert eager.dtype == compiled.dtype == slow.dtype == dtype
        np.testing.assert_array_equal(eager, compiled)
        np.testing.assert_array_equal(eager, slow)
        assert jax.grad(lambda w, x=x: bilinear_conv(x, w, **params).sum())(w).dtype == dtype


def test_bfloat16_accumulates_in_float32():
    # 600 products of 1 in a row: bfloat16 sums stop growing at 256
    x, w = jnp.ones((1, 600, 1), jnp.bfloat16), jnp.ones((600, 1, 1), jnp.bfloat16)
    y = bilinear_conv(x, w, window_strides=(1,), padding=((0, 0),))
    assert float(y[0, 0, 0]) == float(jnp.bfloat16(600))
    # one rounding at the end
    x, w = (a.astype(jnp.bfloat16) for a in draw(6, (2, 9, 9, 8), (3, 3, 8, 4)))
    params = options(1, (1, 1), 1, 1, 1, 2)
    y = bilinear_conv(x, w, **params)
    exact = bilinear_conv(x.astype(jnp.float32), w.astype(jnp.float32), **params)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=2**-8, atol=1e-5)


def test_gradients_keep_the_precision_of_the_forward_pass():
    x, w = draw(7, (1, 4, 2), (3, 2, 2), dtype=np.float32)
    params = options(1, (0, 0), 1, 1, 1, 1)

    def forward(x, w):
        with jax.default_matmul_precision("highest"):
            return bilinear_conv(x, w, **params)

    text = jax.jit(jax.grad(lambda x, w: forward(x, w).sum() ** 2, (0, 1))).lower(x, w).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) == 3
    assert all(line.count("HIGHEST") == 2 for line in lines)


def test_empty_batches():
    params = options(1, (1, 1), 1, 1, 1, 1)
    x, w = jnp.zeros((0, 4, 2)), jnp.ones((3, 2, 2))
    y, back = jax.vjp(lambda x, w: bilinear_conv(x, w, **params), x, w)
    assert y.shape == (0, 4, 2)
    dx, dw = back(y)
    assert dx.shape == x.shape
    assert not dw.any()


def test_swap_channels_is_its_own_inverse():
    (w,) = draw(8, (3, 2, 6))
    np.testing.assert_array_equal(swap_channels(swap_channels(w, 2), 2), w)
    assert swap_channels(w, 2).shape == (3, 3, 4)


# --- several devices -------------------------------------------------------------------------

PARAMS = options(1, (1, 1), 1, 1, 1, 2)


def loss(w, x):
    return (jnp.sin(bilinear_conv(x, w, **PARAMS)) ** 2).mean()


def sharded_example():
    x, w = draw(9, (8, 5, 5, 2), (3, 3, 2, 3), dtype=np.float32)
    return x, w, jax.value_and_grad(loss, (0, 1))(w, x)


def assert_trees_close(a, b):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_jit_with_a_sharded_batch(kind):
    x, w, wanted = sharded_example()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        xs = jax.device_put(x, NamedSharding(mesh, P("data")))
        ws = jax.device_put(w, NamedSharding(mesh, P()))
        y = jax.jit(lambda x, w: bilinear_conv(x, w, **PARAMS))(xs, ws)
        assert y.sharding.spec[0] == "data"
        np.testing.assert_allclose(y, bilinear_conv(x, w, **PARAMS), rtol=1e-5, atol=1e-6)
        assert_trees_close(jax.jit(jax.value_and_grad(loss, (0, 1)))(ws, xs), wanted)
        eager = bilinear_conv(xs, ws, **PARAMS)
        np.testing.assert_allclose(eager, y, rtol=1e-5, atol=1e-6)


def test_pmap():
    x, w, (value, (dw, _)) = sharded_example()

    def step(w, x):
        got, grad = jax.value_and_grad(loss)(w, x)
        return lax.pmean((got, grad), "data")

    values, grads = jax.pmap(step, "data", in_axes=(None, 0))(w, x.reshape(4, 2, *x.shape[1:]))
    assert_trees_close((values[3], grads[3]), (value, dw))


@pytest.mark.parametrize("check_vma", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_shard_map(check_vma, compiled):
    x, w, (value, (dw, _)) = sharded_example()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def step(w, x):
        if check_vma:  # the tracked form: differentiate the averaged loss
            return jax.value_and_grad(lambda w, x: lax.pmean(loss(w, x), "data"))(w, x)
        got, grad = jax.value_and_grad(loss)(w, x)
        return lax.pmean((got, grad), "data")

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P()), check_vma=check_vma
    )
    assert_trees_close((jax.jit(mapped) if compiled else mapped)(w, x), (value, dw))


def test_shard_map_second_order():
    x, w, _ = sharded_example()
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda w, x: lax.pmean(loss(w, x), "data"),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
    )

    def curvature(function):
        return jax.jvp(lambda w: jax.grad(function)(w, x), (w,), (jnp.ones_like(w),))[1]

    assert_trees_close(jax.jit(lambda: curvature(mapped))(), curvature(loss))


# --- loops -----------------------------------------------------------------------------------


def test_loops_are_not_slow():
    """XLA on CPU is ten to forty times slower in loops with lax's own gradients."""
    rs = np.random.RandomState(0)
    x = jnp.asarray(rs.randn(32, 28, 28, 32), jnp.float32)
    w = jnp.asarray(rs.randn(2, 3, 3, 32, 32) * 0.1, jnp.float32)

    def step(w):
        def squared(w):
            y = bilinear_conv(jax.nn.relu(bilinear_conv(x, w[0], **PARAMS)), w[1], **PARAMS)
            return (y**2).mean()

        return w - 0.1 * jax.grad(squared)(w)

    once = jax.jit(step).lower(w).compile()
    scan = jax.jit(lambda w: lax.scan(lambda w, _: (step(w), None), w, None, length=2)[0])
    scan = scan.lower(w).compile()
    cond = jax.jit(lambda on, w: lax.cond(on, step, lambda w: w, w))
    cond = cond.lower(jnp.array(True), w).compile()

    def seconds(call):
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    times = {"once": [], "scan": [], "cond": []}
    for _ in itertools.repeat(None, 8):  # in turn, so that a busy moment meets all three
        times["once"].append(seconds(lambda: once(w)))
        times["scan"].append(seconds(lambda: scan(w)) / 2)
        times["cond"].append(seconds(lambda: cond(jnp.array(True), w)))
    best = {name: min(values[1:]) for name, values in times.items()}
    assert best["scan"] < 3 * best["once"], best
    assert best["cond"] < 3 * best["once"], best
