"""Claims of the notes about normalised and residual networks that need no training."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import apply, init, layers
from jaxd2l.layers import Activation, BatchNorm, Conv, Dense, Identity, Parallel, Repeat, Serial
from jaxd2l.models import blocks, d2l, resnet
from jaxd2l.ops.initializers import HeNormal, XavierUniform

WIDTH = 64
INITS = {"relu": HeNormal(), "sigmoid": XavierUniform()}


def unit(kind, norm=False, residual=False):
    """Dense, batch norm if asked, activation; the input added if asked."""
    bn = [BatchNorm("bn")] if norm else []
    dense = Dense("dense", WIDTH, bias=False, kernel_init=INITS[kind])
    branch = Serial([dense, *bn, Activation(kind)])
    return Parallel([branch, Identity()], "add") if residual else branch


def stacked(depth, key, initializer):
    """Parameters and statistics of `depth` blocks of a dense layer and a batch norm."""
    kernel = initializer(key, (depth, WIDTH, WIDTH), jnp.float32, (WIDTH, WIDTH))
    zeros, ones = jnp.zeros((depth, WIDTH)), jnp.ones((depth, WIDTH))
    params = {"dense": {"kernel": kernel}, "bn": {"scale": ones, "bias": zeros}}
    return params, {"bn": {"mean": zeros, "var": ones}}


def gradient_ratio(kind, norm, residual, depth, seeds=4):
    """|dL/dW_first| / |dL/dW_last| of a deep stack in training: geometric mean over seeds."""
    net = Repeat(unit(kind, norm, residual), depth)

    @jax.jit
    @jax.grad
    def gradients(params, state, x, direction):
        return (apply(net, params, state, x, train=True)[0] * direction).mean()

    ratios = []
    for seed in range(seeds):
        key = jax.random.key(seed)
        params, state = stacked(depth, key, INITS[kind])
        if not norm:
            params, state = {"dense": params["dense"]}, {}
        x, direction = jax.random.normal(jax.random.fold_in(key, 1), (2, 64, WIDTH))
        g = np.asarray(gradients(params, state, x, direction)["dense"]["kernel"])
        ratios.append(np.linalg.norm(g[0]) / np.linalg.norm(g[-1]))
    return float(np.exp(np.log(ratios).mean()))


@functools.cache
def ratio(kind, norm=False, residual=False, depth=20):
    return gradient_ratio(kind, norm, residual, depth)


def test_batch_norm_keeps_gradients_through_sigmoids_but_makes_them_explode_through_relus():
    """C95 depends: 2e-12 becomes 1.8 with sigmoids; with ReLU and batch norm the first layer of 20
    gets 40 times the gradient of the last, and the factor grows with depth."""
    assert ratio("sigmoid") < 1e-10
    assert 0.5 < ratio("sigmoid", norm=True) < 5
    assert ratio("relu", norm=True) > 10
    assert ratio("relu", norm=True) > 4 * ratio("relu", norm=True, depth=10) > 4 * 4


def test_shortcuts_keep_gradients_through_sigmoids():
    """C126: 2e-12 becomes 0.3."""
    assert ratio("sigmoid") < 1e-10
    assert 0.03 < ratio("sigmoid", residual=True) < 3


# The depth of a residual network


def weighted(net, shape=(224, 224, 3)):
    """Convolutions and dense layers: (all of the main path, those of the shortcuts)."""
    steps = [s for s in layers.walk(net, shape) if isinstance(s.layer, Conv | Dense)]
    on_shortcuts = [s for s in steps if "shortcut" in s.path]
    assert all(s.layer.kernel == (1, 1) for s in on_shortcuts)
    return len(steps) - len(on_shortcuts), len(on_shortcuts)


def test_resnet18_has_one_and_sixteen_and_one_weighted_layers():
    """C123: and three 1x1 convolutions on shortcuts that the name does not count."""
    steps = layers.walk(resnet.resnet18(), (224, 224, 3))
    main = [s for s in steps if isinstance(s.layer, Conv | Dense) and "shortcut" not in s.path]
    assert [s.path for s in (main[0], main[-1])] == ["conv1", "output"]
    assert [isinstance(s.layer, Dense) for s in main] == [False] * 17 + [True]
    assert len({s.path.rsplit("/", 1)[0] for s in main[1:-1]}) == 8  # units of two
    assert weighted(resnet.resnet18()) == (1 + 16 + 1, 3)
    assert weighted(d2l.resnet18(), (96, 96, 1)) == (1 + 16 + 1, 3)


@pytest.mark.parametrize(
    ("make", "units", "each"),
    [
        (resnet.resnet18, (2, 2, 2, 2), 2),
        (resnet.resnet34, (3, 4, 6, 3), 2),
        (resnet.resnet50, (3, 4, 6, 3), 3),
        (resnet.resnet101, (3, 4, 23, 3), 3),
        (resnet.resnet152, (3, 8, 36, 3), 3),
    ],
)
def test_depth_is_two_and_the_layers_of_the_units(make, units, each):
    """F47: 2 + 2 sum(n), with bottlenecks 2 + 3 sum(n), which is the number in the name."""
    main, shortcuts = weighted(make())
    assert main == 2 + each * sum(units) == int(make.__name__.removeprefix("resnet"))
    assert shortcuts == (4 if each == 3 else 3)


# Blocks that do nothing


@pytest.mark.parametrize("train", [False, True])
def test_a_residual_block_without_its_branch_is_the_identity(train, key, strict_promotion):
    """C125 depends: with pre-activation always, otherwise for inputs that are not negative."""
    x = jax.random.normal(key, (2, 4, 4, 3))
    cases = {
        blocks.preactivation_block("unit", 3): ("conv2", x),
        blocks.preactivation_block("unit", 3, 2): ("conv3", x),
        blocks.residual_block("unit", 3): ("bn2", jnp.maximum(x, 0)),
        blocks.bottleneck_block("unit", 3, 2): ("bn3", jnp.maximum(x, 0)),
    }
    for net, (last, wanted) in cases.items():
        params, state = init(net, key, (4, 4, 3))
        assert not np.allclose(apply(net, params, state, x, train=train)[0], wanted, atol=0.01)
        params["unit"][last] = jax.tree.map(jnp.zeros_like, params["unit"][last])
        y, _ = apply(net, params, state, x, train=train)
        np.testing.assert_array_equal(y, wanted)
        y, _ = apply(net, params, state, abs(x), train=train)
        np.testing.assert_array_equal(y, abs(x))


# Many paths


def test_a_linear_residual_network_is_the_sum_over_two_to_the_n_paths(key, x64):
    """C127 and F47: exact; the paths through k of n blocks are (n choose k), Bin(n, 1/2)."""
    n, width = 6, 5

    def block(name):
        return Parallel([Dense(name, width, bias=False), Identity()], "add")

    net = Serial([block(f"block{i}") for i in range(n)])
    kernels = jax.random.normal(key, (n, width, width), jnp.float64)
    params = {f"block{i}": {"kernel": kernels[i]} for i in range(n)}
    x = jax.random.normal(key, (3, width), jnp.float64)
    by_length = [np.zeros((3, width)) for _ in range(n + 1)]
    paths = 0
    for taken in itertools.product((False, True), repeat=n):
        y = x
        for i in np.flatnonzero(taken):
            y = y @ params[f"block{i}"]["kernel"]
        by_length[sum(taken)] += y
        paths += 1
    y, _ = apply(net, params, {}, x)
    assert paths == 2**n
    np.testing.assert_allclose(y, sum(by_length), rtol=1e-12)

    # all blocks t I: a path of length k gives t^k, so the output (1 + t)^n counts the lengths
    for t in (1.0, 0.5):
        same = {name: {"kernel": t * jnp.eye(width)} for name in params}
        y, _ = apply(net, same, {}, x)
        binomial = sum(math.comb(n, k) * t**k for k in range(n + 1))
        np.testing.assert_allclose(y, binomial * x, rtol=1e-12)


def without(params, number):
    """The stacked parameters without those of one block."""
    return jax.tree.map(lambda a: np.delete(np.asarray(a), number, 0), params)


def change(residual, depth, seeds=3):
    """How much the output changes, relative to it, when one block is taken out: the mean."""
    branch = [BatchNorm("bn"), Activation("relu"), Dense("dense", WIDTH, bias=False)]
    block = Parallel([Serial(branch), Identity()], "add") if residual else Serial(branch)
    whole, less = Repeat(block, depth), Repeat(block, depth - 1)
    full, cut = (
        jax.jit(lambda params, state, x, net=net: apply(net, params, state, x, train=True)[0])
        for net in (whole, less)
    )
    found = []
    for seed in range(seeds):
        key = jax.random.key(seed)
        params, state = stacked(depth, key, HeNormal())
        x = jax.random.normal(jax.random.fold_in(key, 1), (64, WIDTH))
        y = full(params, state, x)
        for number in range(0, depth, depth // 4):
            z = cut(without(params, number), without(state, number), x)
            found.append(float(jnp.linalg.norm(y - z) / jnp.linalg.norm(y)))
    return np.mean(found)


def test_taking_one_block_out_changes_a_deep_residual_network_little():
    """C127: as an ensemble of paths would, and the less the deeper; a plain one changes wholly."""
    shallow, deep = change(True, 4), change(True, 48)
    assert deep < 0.4
    assert deep < 0.7 * shallow
    assert change(False, 48) > 0.9
