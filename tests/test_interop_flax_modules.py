"""Networks as Flax modules, linen and nnx."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import errors, nnx

import jaxd2l
from jaxd2l import layers
from jaxd2l.interop.flax import as_linen, as_nnx, export_nnx, load_nnx
from jaxd2l.testing import assert_gradients_match

FAST = {"xla_backend_optimization_level": 0}  # every program runs once


def batch(shape, n=3, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.RandomState(seed).normal(size=(n, *shape)), dtype)


def shaken(tree, dtype=jnp.float32):
    """Arrays like these with all values different, so that a transposed one is found out."""
    random = np.random.RandomState(7)
    return jax.tree.map(lambda a: jnp.asarray(random.uniform(0.5, 1.5, jnp.shape(a)), dtype), tree)


def same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def close(got, want):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)


SHAPE = (4, 4, 2)
CNN = layers.Serial(
    [
        layers.Serial([layers.Conv("conv", 4, 3), layers.BatchNorm("bn")], name="stem"),
        layers.Activation("relu"),
        layers.Flatten(),
        layers.Dense("output", 3),
    ]
)
RANDOM = layers.Serial(
    [layers.Dense("hidden", 5), layers.BatchNorm("bn"), layers.Dropout("drop", 0.5)]
)


def test_a_network_is_a_linen_module():
    module, x = as_linen(RANDOM), batch((4,), 6)
    assert module == as_linen(RANDOM)
    assert hash(module) == hash(as_linen(RANDOM))
    variables = module.init(jax.random.key(0), x)
    wanted = jax.eval_shape(lambda k: jaxd2l.init(RANDOM, k, (4,)), jax.random.key(0))
    got = variables["params"], variables["batch_stats"]
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, wanted)
    params, state = jaxd2l.init(RANDOM, jax.random.key(3), (4,))
    trained = {"params": params, "batch_stats": state}
    same(module.apply(trained, x), jaxd2l.apply(RANDOM, params, state, x)[0])

    class Key(nn.Module):  # what linen makes of the key of a stream, at the top
        def __call__(self):
            return self.make_rng("dropout")

    streams = {"dropout": jax.random.key(5)}
    key = Key().apply({}, rngs=streams)
    y, updated = module.apply(trained, x, train=True, rngs=streams, mutable=["batch_stats"])
    want, new = jaxd2l.apply(RANDOM, params, state, x, key=key, train=True)
    assert 0 < int((y == 0).sum()) < y.size
    same((y, updated["batch_stats"]), (want, new))


def test_a_linen_module_that_trains_needs_its_stream_and_mutable_statistics():
    x = batch((4,))
    params, state = jaxd2l.init(RANDOM, jax.random.key(0), (4,))
    trained = {"params": params, "batch_stats": state}
    with pytest.raises(ValueError, match="layer 'drop' is random when train=True"):
        as_linen(RANDOM).apply(trained, x, train=True, mutable=["batch_stats"])
    with pytest.raises(errors.ModifyScopeVariableError):
        as_linen(RANDOM).apply(trained, x, train=True, rngs={"dropout": jax.random.key(0)})
    with pytest.raises(ValueError, match=r"parameters must be \['bias', 'kernel'\], got \[\]"):
        as_linen(RANDOM).apply({"params": {}, "batch_stats": state}, x)
    started = as_linen(RANDOM).init(jax.random.key(0), x, train=True)
    same(started["batch_stats"], state)
    with pytest.raises(TypeError, match="expected a network"):
        as_linen(nn.Dense(3))


def test_a_network_inside_linen_modules_has_their_gradients():
    body = layers.Dense("hidden", 5)
    model = nn.Sequential([as_linen(body), nn.relu, nn.Dense(2)])
    x = batch((4,))
    variables = shaken(model.init(jax.random.key(0), x))

    def by_hand(params):
        hidden = jaxd2l.apply(body, params["layers_0"], {}, x)[0]
        last = params["layers_2"]
        return jax.nn.relu(hidden) @ last["kernel"] + last["bias"]

    assert_gradients_match(
        lambda params: model.apply({"params": params}, x), by_hand, variables["params"], rtol=1e-5
    )

    class Twice(nn.Module):  # one module called twice has one set of parameters
        @nn.compact
        def __call__(self, x):
            layer = as_linen(layers.Dense("hidden", 4))
            return layer(layer(x))

    variables = Twice().init(jax.random.key(0), x)
    hidden = variables["params"]["Network_0"]["hidden"]
    close(Twice().apply(variables, x), x @ hidden["kernel"] @ hidden["kernel"])


def test_a_network_is_an_nnx_module():
    x = batch((4,), 6)
    module = as_nnx(RANDOM, (4,), nnx.Rngs(params=1, dropout=2))
    params, state = jaxd2l.init(RANDOM, nnx.Rngs(1).params(), (4,))
    same(load_nnx(RANDOM, module, (4,)), (params, state))
    stream = nnx.Rngs(params=1, dropout=2).dropout.fork()
    for _ in range(2):  # each call has a mask of its own
        want, state = jaxd2l.apply(RANDOM, params, state, x, key=stream(), train=True)
        same((module(x), load_nnx(RANDOM, module, (4,))[1]), (want, state))
    module.eval()
    same(module(x), jaxd2l.apply(RANDOM, params, state, x)[0])
    same(load_nnx(RANDOM, module, (4,))[1], state)
    module.train()
    assert int((module(x) == 0).sum()) > 0
    still = nnx.view(module, deterministic=True)
    same(still(x), still(x))


def test_an_nnx_module_trains_under_jit():
    net, x = CNN, batch(SHAPE, 6)
    model = as_nnx(net, SHAPE, nnx.Rngs(params=0))
    params, state = load_nnx(net, model, SHAPE)
    assert set(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))["stem"]) == {"bn"}
    nnx.split(model, nnx.Param, nnx.BatchStat)  # and no stream, for nothing is random
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    @functools.partial(jax.jit, compiler_options=FAST)
    def plain(params, state):
        def loss(p):
            y, new = jaxd2l.apply(net, p, state, x, train=True)
            return (y**2).mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), new

    for _ in range(2):
        value, params, state = plain(params, state)
        close(step(model, optimizer, x), value)
        close(load_nnx(net, model, SHAPE), (params, state))


def test_trained_arrays_go_into_an_nnx_module_and_its_model():
    params, state = jaxd2l.init(RANDOM, jax.random.key(9), (4,))
    module = as_nnx(RANDOM, (4,), nnx.Rngs(0))
    nnx.update(module, export_nnx(RANDOM, params, state))
    model = nnx.Sequential(module, nnx.Linear(5, 2, rngs=nnx.Rngs(0)))
    model.eval()
    x = batch((4,))
    close(model(x), model.layers[1](jaxd2l.apply(RANDOM, params, state, x)[0]))


def test_what_an_nnx_module_cannot_be_is_refused():
    with pytest.raises(ValueError, match="nnx modules have an attribute 'train'"):
        as_nnx(layers.Dense("train", 2), (3,), nnx.Rngs(0))
    with pytest.raises(ValueError, match="layer 'drop' is random when train=True"):
        as_nnx(RANDOM, (4,), nnx.Rngs(params=0))(batch((4,)))
    with pytest.raises(TypeError, match="expected a network"):
        as_nnx(nn.Dense(3), (3,), nnx.Rngs(0))


def test_a_repeat_and_a_name_with_a_dot_are_nnx_modules_too():
    net = layers.Repeat(layers.Serial([layers.Dense("d-1.a", 4), layers.BatchNorm("bn")]), 3, "0")
    model = as_nnx(net, (4,), nnx.Rngs(params=0))
    params, state = load_nnx(net, model, (4,))
    assert params["0"]["d-1.a"]["kernel"].shape == (3, 4, 4)
    x = batch((4,))
    want, new = jaxd2l.apply(net, params, state, x, train=True)
    same((model(x), load_nnx(net, model, (4,))[1]), (want, new))
    nnx.update(model, export_nnx(net, params, state))
    same(load_nnx(net, model, (4,)), (params, state))
