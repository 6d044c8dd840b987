"""Normalisation against float64 by hand, PyTorch, Flax and what the notes claim."""

import runpy
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxd2l.ops.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
)

GOLDEN = Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make_normalization.py"))


def random(*shape, seed=0, dtype=np.float32):
    return np.random.RandomState(seed).randn(*shape).astype(dtype)


def by_hand(x, axes, eps=1e-5):
    x = np.asarray(x, np.float64)
    m, v = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - m) / np.sqrt(v + eps)


@partial(jax.jit, static_argnames=("decay", "eps", "unbiased"))
def train(x, scale=None, bias=None, mean=None, var=None, mask=None, **options):
    """One training call from statistics 0 and 1."""
    c = x.shape[-1]
    mean = jnp.zeros(c, x.dtype) if mean is None else mean
    var = jnp.ones(c, x.dtype) if var is None else var
    return batch_norm(x, scale, bias, mean, var, train=True, mask=mask, **options)


@jax.jit
def evaluate(x, scale, bias, mean, var):
    return batch_norm(x, scale, bias, mean, var, train=False)


# Against PyTorch.


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "normalization.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def agrees(golden, name, f, weights, **inputs):
    y, pullback = jax.vjp(lambda given: f(**given), inputs)
    np.testing.assert_allclose(y, golden[name], atol=1e-10)
    for what, gradient in pullback(weights)[0].items():
        np.testing.assert_allclose(gradient, golden[f"{name} {what}"], atol=1e-9, err_msg=what)


@pytest.mark.parametrize("name", MAKE["BATCH"])
def test_batch_norm_equals_pytorch_over_two_steps_and_in_evaluation(name, golden, x64):
    shape = MAKE["BATCH"][name]
    x, scale, bias, weights = MAKE["draw"](shape, shape[-1:])
    mean, var = jnp.zeros(3), jnp.ones(3)
    for step in range(2):
        x_ = jnp.asarray(x + step * x**2)
        step_ = partial(train, mean=mean, var=var, unbiased=True)
        agrees(
            golden,
            f"batch {name} {step}",
            lambda x, scale, bias, f=step_: f(x, scale, bias)[0],
            weights,
            x=x_,
            scale=scale,
            bias=bias,
        )
        _, (mean, var) = step_(x_, scale, bias)
    np.testing.assert_allclose(mean, golden[f"batch {name} mean"], atol=1e-12)
    np.testing.assert_allclose(var, golden[f"batch {name} var"], atol=1e-12)
    agrees(
        golden,
        f"batch {name} eval",
        lambda x, scale, bias: evaluate(x, scale, bias, mean, var)[0],
        weights,
        x=x,
        scale=scale,
        bias=bias,
    )


WITHIN = [("layer", n, s, {"axes": a}) for n, (s, a) in MAKE["LAYER"].items()]
WITHIN += [("group", n, s, {"groups": g}) for n, (s, g) in MAKE["GROUP"].items()]
WITHIN += [("instance", n, s, {}) for n, s in MAKE["INSTANCE"].items()]


@pytest.mark.parametrize(
    ("kind", "name", "shape", "options"), WITHIN, ids=[f"{k} {n}" for k, n, _, _ in WITHIN]
)
def test_norms_within_an_example_equal_pytorch(kind, name, shape, options, golden, x64):
    f = {"layer": layer_norm, "group": group_norm, "instance": instance_norm}[kind]
    over = options.get("axes", (-1,))
    x, scale, bias, weights = MAKE["draw"](shape, tuple(shape[a] for a in over))
    f = jax.jit(partial(f, **options))
    agrees(golden, f"{kind} {name}", f, weights, x=x, scale=scale, bias=bias)


@pytest.mark.parametrize("name", MAKE["RESPONSE"])
def test_local_response_norm_equals_pytorch_with_alpha_times_size(name, golden, x64):
    shape, size, k, alpha, beta = MAKE["RESPONSE"][name]
    x, _, _, weights = MAKE["draw"](shape, ())
    f = partial(local_response_norm, size=size, k=k, alpha=alpha, beta=beta)
    agrees(golden, f"response {name}", jax.jit(f), weights, x=x)


def test_local_response_norm_of_the_paper_by_hand():
    x = 30 * random(2, 3, 9)
    y = jax.jit(local_response_norm)(x)
    want = np.empty(x.shape)
    for c in range(9):
        near = x[..., max(0, c - 2) : min(8, c + 2) + 1].astype(np.float64)
        want[..., c] = x[..., c] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(y, want, rtol=1e-5)


def test_norms_equal_flax():
    x, scale, bias = random(3, 4, 5, 6), 1 + random(6, seed=1), random(6, seed=2)
    params = {"params": {"scale": scale, "bias": bias}}
    statistics = {"mean": random(6, seed=3), "var": 1 + np.abs(random(6, seed=4))}

    @jax.jit
    def run(x):
        norm = nn.BatchNorm(use_running_average=False, momentum=0.9)
        theirs, state = norm.apply(params | {"batch_stats": statistics}, x, mutable=["batch_stats"])
        ours, (mean, var) = batch_norm(
            x, scale, bias, statistics["mean"], statistics["var"], train=True
        )
        return [
            (ours, theirs),
            (mean, state["batch_stats"]["mean"]),
            (var, state["batch_stats"]["var"]),
            (layer_norm(x, scale, bias), nn.LayerNorm(epsilon=1e-5).apply(params, x)),
            (group_norm(x, scale, bias, 3), nn.GroupNorm(3, epsilon=1e-5).apply(params, x)),
            (instance_norm(x, scale, bias), nn.InstanceNorm(epsilon=1e-5).apply(params, x)),
        ]

    for ours, theirs in run(x):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


# Numerics.


@pytest.mark.parametrize("shape", [(64, 3), (8, 16, 16, 3)])
def test_a_large_mean_loses_no_digits(shape):
    x = (1e4 + random(*shape)).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    y, (mean, var) = train(x, decay=0.0)
    np.testing.assert_allclose(mean, x.mean(axes, dtype=np.float64), rtol=2e-7)
    np.testing.assert_allclose(var, x.var(axes, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(y, by_hand(x, axes), atol=1e-5)
    np.testing.assert_allclose(jax.jit(layer_norm)(x, None, None), by_hand(x, -1), atol=1e-5)
    if len(shape) == 4:
        got = jax.jit(instance_norm)(x, None, None)
        np.testing.assert_allclose(got, by_hand(x, (1, 2)), atol=1e-5)
    # E[x^2] - E[x]^2, the usual short cut, has not one digit right.
    short = np.square(x).mean(axes) - np.square(x.mean(axes))
    assert np.abs(short - x.var(axes, dtype=np.float64)).max() > 0.3


def test_a_constant_batch_gives_the_bias():
    y, (mean, var) = train(jnp.full((4, 2), 1234.5678), bias=jnp.array([1.0, -2.0]), decay=0.0)
    np.testing.assert_array_equal(y, np.tile([1.0, -2.0], (4, 1)))
    np.testing.assert_array_equal(var, [0, 0])
    np.testing.assert_array_equal(mean, np.float32([1234.5678] * 2))


def test_half_precision_is_computed_in_float32(strict_promotion):
    x = jnp.asarray(3 + random(512, 2), jnp.bfloat16)
    wide = np.asarray(x, np.float32)
    y, (mean, var) = train(x, mean=jnp.zeros(2), var=jnp.ones(2), decay=0.0)
    assert y.dtype == jnp.bfloat16
    assert mean.dtype == var.dtype == jnp.float32
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, wide.var(0), rtol=1e-4)
    np.testing.assert_allclose(np.asarray(y, np.float32), by_hand(wide, 0), rtol=1e-2, atol=1e-3)


# The printed values and claims of the notes.


def test_the_means_of_arange_120():
    """C91."""
    _, (mean, _) = train(jnp.arange(120.0).reshape(20, 6), decay=0.0)
    assert mean.tolist() == [57, 58, 59, 60, 61, 62]
    channels_first = jnp.arange(120.0).reshape(2, 3, 4, 5)
    _, (mean, _) = train(channels_first.transpose(0, 2, 3, 1), decay=0.0)
    assert mean.tolist() == [39.5, 59.5, 79.5]


def test_a_bias_before_batch_norm_does_nothing():
    """C92."""
    x, w = random(16, 5), random(5, 4, seed=1)

    @jax.jit
    def loss(b):
        y, _ = train(x @ w + b)
        return jnp.sum(jnp.sin(y)), y

    (_, with_bias), gradient = jax.value_and_grad(loss, has_aux=True)(10 * random(4, seed=2))
    np.testing.assert_allclose(with_bias, loss(jnp.zeros(4))[1], atol=2e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def test_scale_and_bias_can_undo_the_normalisation():
    """C93, E20: scale = sqrt(variance + eps) and bias = mean; not "the mean and the variance"."""
    x = (3 + 2 * random(32, 4, seed=3)).astype(np.float32)
    mean, var = x.mean(0), x.var(0)
    y, _ = train(x, np.sqrt(var + np.float32(1e-5)), mean)
    np.testing.assert_allclose(y, x, atol=1e-5)
    for scale, bias in [(mean, var), (var, mean)]:
        y, _ = train(x, scale, bias)
        assert np.abs(y - x).max() > 1


def test_batch_mates_matter_to_batch_norm_alone():
    """C96, C99, E51."""
    x = random(4, 6, 6, 4)
    other = x.copy()
    other[1:] = 5 + 3 * random(3, 6, 6, 4, seed=1)

    @jax.jit
    def run(x):
        within = [
            layer_norm(x, None, None),
            layer_norm(x, None, None, axes=(1, 2, 3)),
            group_norm(x, None, None, 2),
            instance_norm(x, None, None),
        ]
        return train(x)[0], within

    (batch, within), (batch_other, within_other) = run(x), run(other)
    assert np.abs(batch[0] - batch_other[0]).max() > 0.5
    for a, b in zip(within, within_other, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    mean, var = jnp.zeros(4), jnp.ones(4)  # nor in evaluation
    one, many = evaluate(x[:1], None, None, mean, var)[0], evaluate(x, None, None, mean, var)[0]
    np.testing.assert_array_equal(one[0], many[0])


def test_layer_norm_of_a_batch_is_that_of_each_example():
    """C99: the batch size plays no part."""
    x = random(5, 3, 4)
    scale, bias = random(4, seed=1), random(4, seed=2)
    f = jax.jit(layer_norm)
    each = jax.jit(jax.vmap(lambda a: layer_norm(a, scale, bias)))(x)
    np.testing.assert_allclose(f(x, scale, bias), each, atol=1e-6)
    np.testing.assert_allclose(f(x[:1], scale, bias)[0], each[0], atol=1e-6)


def test_batch_norm_of_one_example_is_the_bias():
    """C97: a dense layer and a batch of one; the running variance takes the biased 0."""
    y, (_, var) = train(random(1, 3), bias=jnp.arange(3.0), unbiased=True)
    assert y.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(var, 0.9, rtol=1e-6)


def test_small_batches_differ_more_from_evaluation():
    """C98: statistics of a small batch are noisy, evaluation uses the running ones."""
    gaps = []
    for size in (4, 256):
        x = random(size, 64)  # true mean 0 and variance 1
        y, _ = train(x)
        calm, (mean, var) = evaluate(x, None, None, jnp.zeros(64), jnp.ones(64))
        assert mean.tolist() == [0] * 64
        assert var.tolist() == [1] * 64
        gaps.append(np.sqrt(np.mean(np.square(y - calm))))
    assert gaps[0] > 4 * gaps[1]


def test_running_statistics_reach_those_of_the_data():
    x = (3 + 2 * random(64, 2)).astype(np.float32)
    mean, var = jnp.zeros(2), jnp.ones(2)
    for step in range(1, 101):
        _, (mean, var) = train(x, mean=mean, var=var)
        if step in (1, 2):
            np.testing.assert_allclose(mean, (1 - 0.9**step) * x.mean(0), rtol=1e-5)
            np.testing.assert_allclose(var, 0.9**step + (1 - 0.9**step) * x.var(0), rtol=1e-5)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-3)
    np.testing.assert_allclose(var, x.var(0), rtol=1e-3)
    y, _ = evaluate(x, None, None, mean, var)
    np.testing.assert_allclose(y, train(x)[0], atol=1e-3)


def test_the_output_is_standardised_not_gaussian():
    """C101, E68: mean 0 and variance 1, but the shape of the distribution is that of the input."""
    uniform = np.random.RandomState(0).rand(4096, 1).astype(np.float32)
    y = np.asarray(train(uniform)[0], np.float64)
    assert abs(y.mean()) < 1e-5
    assert abs(y.var() - 1) < 1e-3
    kurtosis = np.mean(y**4) / np.mean(y**2) ** 2
    assert abs(kurtosis - 1.8) < 0.05  # uniform; a Gaussian has 3


def test_the_norms_are_one_family():
    """C103: one group is layer norm over (h, w, c), a group a channel is instance norm."""
    x = 2 + 3 * random(3, 4, 5, 6)

    @jax.jit
    def run(x):
        return [
            (group_norm(x, None, None, 1), layer_norm(x, None, None, axes=(1, 2, 3))),
            (group_norm(x, None, None, 6), instance_norm(x, None, None)),
            (instance_norm(x, None, None), layer_norm(x, None, None, axes=(1, 2))),
            (instance_norm(x[:1], None, None), train(x[:1])[0]),
        ]

    for a, b in run(x):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_the_size_of_the_weights_before_batch_norm_is_forgotten():
    """C8: the same output from 10 W; the gradient is a tenth, so training still depends on it."""
    x, w = random(32, 5), random(5, 4, seed=1)

    @jax.jit
    @jax.value_and_grad
    def loss(w):
        return jnp.sum(jnp.sin(train(x @ w, eps=1e-12)[0]))

    (value, gradient), (value_10, gradient_10) = loss(w), loss(10 * w)
    np.testing.assert_allclose(value, value_10, rtol=1e-4)
    np.testing.assert_allclose(gradient, 10 * gradient_10, rtol=1e-3, atol=1e-3)


def test_batch_norm_ignores_positive_affine_maps_of_its_input():
    """F15: BN(a x + c) = BN(x) for a > 0, and -BN(x) for a < 0."""
    x = random(32, 3)
    y, _ = train(x, eps=1e-12)
    np.testing.assert_allclose(train(5 * x + 7, eps=1e-12)[0], y, atol=1e-4)
    np.testing.assert_allclose(train(7 - 5 * x, eps=1e-12)[0], -y, atol=1e-4)


# Masks.


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5, 3)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_a_mask_leaves_the_statistics_of_the_valid_examples(shape, unbiased):
    x = random(*shape)
    scale, bias = 1 + random(3, seed=1), random(3, seed=2)
    want, (mean, var) = train(x, scale, bias, unbiased=unbiased)
    padded = np.concatenate([np.full((2, *shape[1:]), 1e3, np.float32), x])
    mask = np.array([False, False] + [True] * 4)
    got, (got_mean, got_var) = train(padded, scale, bias, unbiased=unbiased, mask=mask)
    np.testing.assert_allclose(got[2:], want, atol=1e-5)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got_var, var, rtol=1e-5)
    same, _ = train(x, scale, bias, mask=np.ones(4, bool))
    np.testing.assert_allclose(same, want, atol=1e-6)


def test_examples_that_are_masked_out_get_no_gradient_and_give_none():
    x, weights = random(5, 3), random(5, 3, seed=1)
    mask = np.array([True, True, False, True, False])

    @jax.jit
    @jax.grad
    def gradient(x):
        y = train(x, mask=mask)[0]
        return jnp.sum(jnp.where(mask[:, None], weights * y, 0))

    @jax.jit
    @jax.grad
    def alone(x):
        return jnp.sum(weights[mask] * train(x)[0])

    got = np.asarray(gradient(x))
    np.testing.assert_array_equal(got[~mask], 0)
    np.testing.assert_allclose(got[mask], alone(x[mask]), atol=1e-6)


def test_a_batch_with_no_valid_example_leaves_the_statistics():
    mean, var = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    y, (new_mean, new_var) = train(
        random(3, 2), mean=mean, var=var, mask=np.zeros(3, bool), unbiased=True
    )
    assert np.isfinite(y).all()
    assert new_mean.tolist() == [1, 2]
    assert new_var.tolist() == [3, 4]


# Several devices.

SCALE, BIAS = 1 + random(3, seed=5), random(3, seed=6)


def on_shards(kind, f):
    """f of the shards of the batch of four devices, x and the mask (8, ...) -> (8, ...)."""
    if kind == "shard_map":
        mesh = Mesh(np.array(jax.devices()[:4]), ("i",))
        p = PartitionSpec("i")
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(p, p), out_specs=p, check_vma=False))
    mapped = {"pmap": partial(jax.pmap, devices=jax.devices()[:4]), "vmap": jax.vmap}[kind]
    split = lambda a: a.reshape(4, 2, *a.shape[1:])  # noqa: E731
    whole = lambda a: a.reshape(8, *a.shape[2:])  # noqa: E731
    run = mapped(f, axis_name="i")
    return lambda x, m: jax.tree.map(whole, run(split(x), split(m)))


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "vmap"])
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_across_four_devices_are_those_of_one(kind, masked):
    # Each device sees another mean. Masked: 2, 1, 0 and 1 valid examples on the four of them.
    x = 10 * np.arange(8, dtype=np.float32)[:, None, None] + random(8, 2, 3)
    weights = random(8, 2, 3, seed=1)
    mask = np.array([1, 1, 0, 1, 0, 0, 1, 0], bool) if masked else np.ones(8, bool)

    def loss(x, mask, weights, axis_name):
        y, statistics = batch_norm(
            x,
            SCALE,
            BIAS,
            jnp.zeros(3),
            jnp.ones(3),
            train=True,
            unbiased=True,
            mask=mask if masked else None,
            axis_name=axis_name,
        )
        y = jnp.where(mask[:, None, None], y, 0)
        return jnp.sum(weights * y), (y, *statistics)

    def shard(x, both):
        mask, weights = both[:, 0, 0] > 0, both[:, 1:]
        (_, (y, mean, var)), gradient = jax.value_and_grad(loss, has_aux=True)(
            x, mask, weights, "i"
        )
        return y, gradient, jnp.tile(mean, (2, 1)), jnp.tile(var, (2, 1))

    both = np.concatenate([np.broadcast_to(mask[:, None, None], (8, 1, 3)), weights], axis=1)
    y, gradient, mean, var = on_shards(kind, shard)(x, both.astype(np.float32))
    (_, (want, want_mean, want_var)), want_gradient = jax.jit(
        jax.value_and_grad(loss, has_aux=True), static_argnums=3
    )(x, mask, weights, None)
    np.testing.assert_allclose(y, want, atol=2e-6)
    np.testing.assert_allclose(mean, np.tile(want_mean, (8, 1)), rtol=1e-5)
    np.testing.assert_allclose(var, np.tile(want_var, (8, 1)), rtol=1e-5)
    # Each device's gradient is that of the sum of all losses.
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-6)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_batch_sharded_by_jit_needs_no_axis_name(axis_type):
    mesh = jax.make_mesh((4,), ("i",), axis_types=(axis_type,))
    x, mask = random(8, 2, 3), np.array([1, 1, 0, 1, 0, 0, 1, 0], bool)

    def loss(x, mask):
        y = batch_norm(x, SCALE, BIAS, jnp.zeros(3), jnp.ones(3), train=True, mask=mask)[0]
        return jnp.sum(jnp.where(mask.reshape(8, 1, 1), jnp.sin(y), 0))

    want, want_gradient = jax.jit(jax.value_and_grad(loss))(x, mask)
    sharded = jax.device_put((x, mask), NamedSharding(mesh, PartitionSpec("i")))
    with jax.set_mesh(mesh):
        got, gradient = jax.jit(jax.value_and_grad(loss))(*sharded)
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(gradient), want_gradient, atol=1e-6)


# Gradients, transforms and dtypes.


def batch(x, **options):
    c = x.shape[-1]
    ones, zeros = jnp.ones(c, x.dtype), jnp.zeros(c, x.dtype)
    return batch_norm(x, 2 * ones, ones, zeros, ones, **options)[0]


OPERATIONS = {
    "batch": partial(batch, train=True),
    "batch masked": partial(batch, train=True, mask=np.array([True, False, True])),
    "batch eval": partial(batch, train=False),
    "layer": lambda x: layer_norm(x, None, None),
    "layer image": lambda x: layer_norm(x, None, None, axes=(1, 2)),
    "group": lambda x: group_norm(x, None, None, 2),
    "instance": lambda x: instance_norm(x, None, None),
    "response": lambda x: local_response_norm(x, size=3, alpha=0.5),
}
each_operation = pytest.mark.parametrize("f", OPERATIONS.values(), ids=OPERATIONS)


@each_operation
def test_gradients(f, x64):
    check_grads(jax.jit(lambda x: jnp.sin(f(x))), (jnp.asarray(random(3, 2, 4, dtype=float)),), 2)


def test_gradients_of_scale_bias_and_statistics(x64):
    mask = np.array([True, True, False, True])

    @jax.jit
    def f(x, scale, bias, mean, var):
        return batch_norm(x, scale, bias, mean, var, train=True, mask=mask, unbiased=True)

    inputs = [random(*s, seed=i, dtype=float) for i, s in enumerate([(4, 3)] + [(3,)] * 4)]
    check_grads(f, tuple(map(jnp.asarray, inputs)), 2)


@pytest.mark.parametrize("name", ["layer", "group", "instance", "response"])
def test_transforms_compose(name, strict_promotion):
    f = OPERATIONS[name]
    x, t = jnp.asarray(random(3, 5, 4)), jnp.asarray(random(3, 5, 4, seed=1))

    def loss(x):
        return jnp.sum(jnp.sin(f(x)))

    @jax.jit
    def run(x, t):
        y, pushed = jax.jvp(f, (x,), (t,))
        _, pullback = jax.vjp(f, x)
        gradient, curvature = jax.jvp(jax.grad(loss), (x,), (t,))
        return {
            "y": y,
            "vmap": jax.vmap(lambda a: f(a[None])[0])(x),
            "forward": jnp.sum(y * pushed),
            "reverse": jnp.sum(pullback(y)[0] * t),
            "gradient": gradient,
            "vmap of grad": jax.vmap(jax.grad(lambda a: loss(a[None])))(x),
            "curvature": curvature,
            "reverse over forward": jax.grad(lambda x: jax.jvp(loss, (x,), (t,))[1])(x),
        }

    out = run(x, t)
    np.testing.assert_allclose(f(x), out["y"], atol=1e-6)
    for a, b in [
        ("vmap", "y"),
        ("forward", "reverse"),
        ("vmap of grad", "gradient"),
        ("reverse over forward", "curvature"),
    ]:
        np.testing.assert_allclose(out[a], out[b], rtol=1e-4, atol=1e-5, err_msg=a)


def test_batch_norm_under_vmap_and_scan(strict_promotion):
    x = jnp.asarray(random(3, 8, 4))
    scale, mean, var = jnp.asarray(random(3, 4)), jnp.zeros((3, 4)), jnp.ones((3, 4))

    def one(x, scale, mean, var):
        return batch_norm(x, scale, None, mean, var, train=True)

    mapped, state = jax.jit(jax.vmap(one))(x, scale, mean, var)
    step = jax.jit(one)
    for i in range(3):
        y, (m, v) = step(x[i], scale[i], mean[i], var[i])
        np.testing.assert_allclose(mapped[i], y, atol=1e-6)
        np.testing.assert_allclose(state[0][i], m, atol=1e-6)
        np.testing.assert_allclose(state[1][i], v, atol=1e-6)

    def body(statistics, batch):
        y, statistics = one(batch, scale[0], *statistics)
        return statistics, y

    (scanned, _), _ = lax.scan(body, (mean[0], var[0]), x)
    one_by_one = (mean[0], var[0])
    for i in range(3):
        _, one_by_one = step(x[i], scale[0], *one_by_one)
    np.testing.assert_allclose(scanned, one_by_one[0], atol=1e-6)


@each_operation
def test_dtypes_are_kept(f, x64, strict_promotion):
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64):
        x = jax.ShapeDtypeStruct((3, 2, 4), dtype)
        assert jax.eval_shape(f, x).dtype == dtype


def test_float32_parameters_serve_inputs_of_every_dtype(x64, strict_promotion):
    p = jax.ShapeDtypeStruct((4,), jnp.float32)
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        x = jax.ShapeDtypeStruct((3, 2, 4), dtype)
        for mode in (True, False):
            y, statistics = jax.eval_shape(partial(batch_norm, train=mode), x, p, p, p, p)
            assert y.dtype == dtype
            assert [s.dtype for s in statistics] == [jnp.float32] * 2
        assert jax.eval_shape(layer_norm, x, p, p).dtype == dtype
        assert jax.eval_shape(lambda x, p: group_norm(x, p, p, 2), x, p).dtype == dtype


def test_numpy_arrays_are_taken_in_float32():
    x, p = random(3, 2, 4, dtype=np.float64), np.ones(4)
    for mode in (True, False):
        y, (mean, _) = jax.eval_shape(lambda m=mode: batch_norm(x, p, p, p, p, train=m))
        assert y.dtype == mean.dtype == jnp.float32
    assert jax.eval_shape(lambda: layer_norm(x, p, p)).dtype == jnp.float32
    assert jax.eval_shape(lambda: instance_norm(x, p, p)).dtype == jnp.float32
    assert jax.eval_shape(lambda: local_response_norm(x)).dtype == jnp.float32


def test_evaluation_gives_the_same_statistics_back():
    mean, var = jnp.array([1.0]), jnp.array([2.0])
    _, (new_mean, new_var) = batch_norm(jnp.ones((2, 1)), None, None, mean, var, train=False)
    assert new_mean is mean
    assert new_var is var


# Errors.


def batch_with(**changes):
    given = {"x": jnp.ones((2, 3)), "scale": None, "bias": None, "train": True}
    given |= {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    return batch_norm(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": jnp.ones(3)}, ValueError, r"x must have shape \(n, \.\.\., c\), got \(3,\)"),
        ({"x": jnp.ones((2, 3), int)}, TypeError, "x must be floating point, got int32"),
        ({"scale": jnp.ones(2)}, ValueError, r"scale must have shape \(3,\).* got \(2,\)"),
        ({"bias": jnp.ones((1, 3))}, ValueError, r"bias must have shape \(3,\).* got \(1, 3\)"),
        ({"mean": jnp.ones(4)}, ValueError, r"mean must have shape \(3,\).* got \(4,\)"),
        ({"var": jnp.ones(3, int)}, TypeError, "var must be floating point, got int32"),
        ({"decay": 1.5}, ValueError, r"decay must lie in \[0, 1\], got 1\.5"),
        ({"eps": -1e-5}, ValueError, "eps must not be negative, got -1e-05"),
        ({"mask": np.ones(3, bool)}, ValueError, r"mask must have shape \(2,\).* got \(3,\)"),
        ({"mask": np.ones(2)}, TypeError, "mask must be bool, got float"),
    ],
)
def test_user_errors_of_batch_norm(changes, error, message):
    with pytest.raises(error, match=f"batch_norm: {message}"):
        batch_with(**changes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: layer_norm(x, None, None, axes=3),
            ValueError,
            r"layer_norm: axes must be axes of x \(2, 4, 6\), got 3",
        ),
        (
            lambda x: layer_norm(x, None, None, axes=(-1, 2)),
            ValueError,
            r"layer_norm: axes must differ, got \(-1, 2\)",
        ),
        (
            lambda x: layer_norm(x, jnp.ones(6), None, axes=(1, 2)),
            ValueError,
            r"layer_norm: scale must have shape \(4, 6\).* got \(6,\)",
        ),
        (
            lambda x: group_norm(x, None, None, 4),
            ValueError,
            "group_norm: groups 4 must divide the 6 channels",
        ),
        (
            lambda x: group_norm(x, None, None, 0),
            ValueError,
            "group_norm: groups must be at least 1, got 0",
        ),
        (
            lambda x: group_norm(x, None, jnp.ones(4), 2),
            ValueError,
            r"group_norm: bias must have shape \(6,\).* got \(4,\)",
        ),
        (
            lambda x: group_norm(x[0, 0], None, None, 2),
            ValueError,
            r"group_norm: x must have shape \(n, \*spatial, c\), got \(6,\)",
        ),
        (
            lambda x: instance_norm(x[0], None, None),
            ValueError,
            r"instance_norm: x must have shape \(n, \*spatial, c\) .* got \(4, 6\)",
        ),
        (
            lambda x: local_response_norm(x, k=0.0),
            ValueError,
            r"local_response_norm: k must be above 0, got 0\.0",
        ),
        (
            lambda x: local_response_norm(x, size=0),
            ValueError,
            "local_response_norm: size must be at least 1, got 0",
        ),
        (
            lambda x: local_response_norm(x.astype(int)),
            TypeError,
            "local_response_norm: x must be floating point, got int32",
        ),
    ],
)
def test_user_errors_of_the_others(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((2, 4, 6)))
