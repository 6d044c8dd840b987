"""Flax modules as layers: their statistics, their dropout, their gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxd2l
from jaxd2l import layers
from jaxd2l.testing import assert_gradients_match

X = jax.random.normal(jax.random.key(1), (8, 6))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(5)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


def close(got, want):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)


NET = layers.Serial(
    [layers.FlaxModule("block", Block(), train_argument="train"), layers.Identity()]
)


@pytest.fixture(scope="module")
def made():
    return jaxd2l.init(NET, jax.random.key(0), (6,))


def test_batch_stats_become_state_and_are_updated_in_training_only(made):
    params, state = made
    assert set(state["block"]) == {"batch_stats"}
    _, new = jaxd2l.apply(NET, params, state, X, train=True, key=jax.random.key(2))
    hidden = X @ params["block"]["Dense_0"]["kernel"]
    close(new["block"]["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * hidden.mean(0))
    y, same = jaxd2l.apply(NET, params, new, X)
    assert same is new
    variables = {"params": params["block"], **new["block"]}
    close(y, Block().apply(variables, X, train=False))


def test_training_output_and_gradients_are_those_of_flax(made):
    params, state = made
    key = jax.random.key(2)

    def ours(params):
        return jaxd2l.apply(NET, params, state, X, train=True, key=key)[0]

    def theirs(params):
        y, _ = Block().apply(
            {"params": params["block"], **state["block"]},
            X,
            train=True,
            rngs={"dropout": layers.fold_path(key, ("block",))},
            mutable=["batch_stats"],
        )
        return y

    assert_gradients_match(ours, theirs, params, rtol=1e-5)


def test_the_opposite_sense_of_the_train_argument():
    drop = layers.FlaxModule("drop", nn.Dropout(0.5), train_argument="!deterministic")
    assert jaxd2l.init(drop, jax.random.key(0), (6,)) == ({}, {})
    ones = jnp.ones((4, 32))
    y, _ = jaxd2l.apply(drop, {}, {}, ones, train=True, key=jax.random.key(1))
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(jaxd2l.apply(drop, {}, {}, ones)[0], ones)

    norm = layers.FlaxModule("bn", nn.BatchNorm(momentum=0.0), "!use_running_average")
    params, state = jaxd2l.init(norm, jax.random.key(0), (6,))
    _, new = jaxd2l.apply(norm, params, state, X, train=True)
    close(new["bn"]["batch_stats"]["mean"], X.mean(0))


def test_initialisers_by_path_reach_inside_and_ties_share_a_module():
    module = layers.FlaxModule("a", nn.Dense(6))
    net = layers.Serial([module, layers.Tied("again", module, to="a")])
    ones = {"a/kernel": lambda key, shape, dtype, fan: jnp.ones(shape, dtype)}
    params, _ = jaxd2l.init(net, jax.random.key(0), (6,), initializers=ones)
    want = X.sum(1, keepdims=True) * jnp.full((1, 6), 6.0)
    close(jaxd2l.apply(net, params, {}, X)[0], want)


def test_an_nnx_module_through_the_bridge():
    linen = nnx.bridge.to_linen(nnx.Linear, 6, out_features=3)
    net = layers.Serial([layers.FlaxModule("nnx", linen), layers.Dense("head", 2)])
    assert jaxd2l.output_shape(net, (6,)) == (2,)
    params, state = jaxd2l.init(net, jax.random.key(0), (6,))
    y, _ = jaxd2l.apply(net, params, state, X)
    hidden = X @ params["nnx"]["kernel"] + params["nnx"]["bias"]
    close(y, hidden @ params["head"]["kernel"] + params["head"]["bias"])
    with pytest.raises(TypeError, match=r"wrap an nnx module with flax.nnx.bridge.to_linen"):
        layers.FlaxModule("nnx", nnx.Linear(6, 3, rngs=nnx.Rngs(0)))


def test_what_is_not_one_array_or_not_a_module_is_refused():
    class Two(nn.Module):
        def __call__(self, x):
            return x, x

    with pytest.raises(ValueError, match=r"FlaxModule 'two': it must return one array"):
        jaxd2l.output_shape(layers.FlaxModule("two", Two()), (3,))
    with pytest.raises(TypeError, match=r"expected a flax\.linen module, got 3"):
        layers.FlaxModule("f", 3)
    with pytest.raises(
        TypeError, match=r"train_argument must be the name of an argument, got True"
    ):
        layers.FlaxModule("f", nn.Dense(3), train_argument=True)


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (3, 4))
        return x @ (kernel / jnp.linalg.svd(kernel, compute_uv=False)[0])


def test_unknown_macs_are_said_to_be_unknown():
    known = layers.Serial([layers.FlaxModule("inner", nn.Dense(4)), layers.Dense("outer", 2)])
    assert [row.macs for row in jaxd2l.summarize(known, (3,)).rows] == [12, 8]
    net = layers.Serial([layers.FlaxModule("inner", Spectral()), layers.Dense("outer", 2)])
    table = jaxd2l.summarize(net, (3,))
    assert [row.macs for row in table.rows] == [None, 8]
    assert table.macs == 8
    assert "MACs per example at least 8 " in str(table)
    assert str(table).splitlines()[3].endswith(" -")


def test_a_new_trace_of_apply_runs_the_module_once():
    calls = []

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            calls.append(x.shape)
            return nn.Dense(2)(x)

    net = layers.FlaxModule("inner", Counted())
    params, state = jaxd2l.init(net, jax.random.key(0), (3,))
    calls.clear()
    for n in (4, 5):
        jax.eval_shape(lambda x: jaxd2l.apply(net, params, state, x)[0], jnp.ones((n, 3)))
    assert calls == [(4, 3), (5, 3)]
