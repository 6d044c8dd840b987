"""One mask for one example, whatever the batch or the devices; `apply` under every transform."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxd2l
from jaxd2l import layers, models

DEVICES = 4
KEY = jax.random.key(5)
NET = models.mlp((16, 12), num_classes=3, dropout=(0.5, 0.25))
X = jax.random.normal(jax.random.key(1), (8, 4))


@pytest.fixture(scope="module")
def params():
    return jaxd2l.init(NET, jax.random.key(0), (4,))[0]


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def masks(net, n, examples=None, key=KEY, features=32):
    """What a network of dropouts keeps of an input of ones."""
    x = jnp.ones((n, features))
    y, _ = jaxd2l.apply(net, {}, {}, x, key=key, train=True, examples=examples)
    return np.asarray(y) != 0


def run(params, x, examples=None):
    return jaxd2l.apply(NET, params, {}, x, key=KEY, train=True, examples=examples)[0]


# --- the mask belongs to the example ------------------------------------------------------------


def test_the_mask_of_an_example_does_not_depend_on_batch_size_or_position():
    drop = layers.Dropout("drop", 0.5)
    whole = masks(drop, 8)
    np.testing.assert_array_equal(masks(drop, 3), whole[:3])
    order = jnp.asarray([6, 1, 3])
    np.testing.assert_array_equal(masks(drop, 3, examples=order), whole[order])
    assert len({row.tobytes() for row in whole}) == 8  # every example has its own


def test_a_whole_network_gives_the_same_bits_alone_in_parts_and_on_four_devices(params, mesh):
    # Products are computed row by row, so that only the masks could make a difference.
    def rows(params, x, examples):
        return jax.lax.map(lambda row: run(params, row[0][None], row[1][None])[0], (x, examples))

    n = len(X)
    index = jnp.arange(n)
    whole = np.asarray(jax.jit(rows)(params, X, index))

    local = n // DEVICES
    shard = functools.partial(jax.tree.map, lambda a: a.reshape(DEVICES, local, *a.shape[1:]))

    def on_a_device(params, x):
        first = jax.lax.axis_index("data") * local
        return rows(params, x, first + jnp.arange(local))

    mapped = jax.pmap(on_a_device, "data", in_axes=(None, 0))(params, shard(X))
    np.testing.assert_array_equal(np.asarray(mapped).reshape(whole.shape), whole)

    sharded = jax.jit(
        jax.shard_map(
            on_a_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False
        )
    )(params, X)
    np.testing.assert_array_equal(sharded, whole)


def test_a_sharded_batch_under_jit_gives_the_masks_of_one_device(mesh):
    net = layers.Serial([layers.Dropout("a", 0.5), layers.Dropout("b", 0.25)])
    x = jnp.ones((8, 32))
    call = jax.jit(lambda x: jaxd2l.apply(net, {}, {}, x, key=KEY, train=True)[0])
    got = call(jax.device_put(x, NamedSharding(mesh, P("data"))))
    assert len(got.sharding.device_set) == DEVICES
    np.testing.assert_array_equal(got, call(x))


def test_a_sharded_batch_through_a_whole_network_agrees(params, mesh):
    call = jax.jit(run)
    got = call(params, jax.device_put(X, NamedSharding(mesh, P("data"))))
    np.testing.assert_allclose(got, call(params, X), atol=1e-6)


def test_without_examples_every_device_would_draw_the_same_mask():
    # Why `examples` is needed where a device sees only its own rows.
    drop = layers.Dropout("drop", 0.5)

    def local(x, examples=None):
        return jaxd2l.apply(drop, {}, {}, x, key=KEY, train=True, examples=examples)[0]

    ones = jnp.ones((DEVICES, 2, 32))
    wrong = np.asarray(jax.pmap(local, "data")(ones))
    assert (wrong == wrong[0]).all()
    right = np.asarray(jax.pmap(local, "data")(ones, jnp.arange(8).reshape(DEVICES, 2)))
    np.testing.assert_array_equal(right.reshape(8, 32) != 0, masks(drop, 8))


def test_a_network_can_be_mapped_over_single_examples(params):
    one = jax.vmap(lambda x, i: run(params, x[None], i[None])[0])(X, jnp.arange(8))
    np.testing.assert_allclose(one, run(params, X), atol=1e-6)


# --- names decide -------------------------------------------------------------------------------


def test_inserting_or_reordering_layers_does_not_reseed_the_others():
    def kept(*between):
        return masks(layers.Serial([*between, layers.Dropout("drop", 0.5)]), 4)

    alone = kept()
    np.testing.assert_array_equal(kept(layers.Identity()), alone)
    other = layers.Dropout("other", 0.0)
    np.testing.assert_array_equal(
        kept(other, layers.Activation("relu"), layers.Dropout("x", 0)), alone
    )
    np.testing.assert_array_equal(
        masks(layers.Serial([layers.Serial([layers.Dropout("drop", 0.5)])]), 4), alone
    )


def test_names_keys_and_paths_decide():
    def kept(name="drop", key=KEY, outer=None):
        return masks(layers.Serial([layers.Dropout(name, 0.5)], name=outer), 4, key=key)

    base = kept()
    for other in (kept("drop2"), kept(key=jax.random.key(6)), kept(outer="block")):
        assert 0.3 < (other == base).mean() < 0.7
    np.testing.assert_array_equal(kept(), base)


def test_keys_of_layers_are_the_callers_folded_with_the_names():
    seen = []

    from jaxd2l import records

    @records.record
    class Spy(layers.Layer):
        name: str

        def apply(self, params, state, x, context):
            seen.append((context.path, jax.random.key_data(context.key).tolist()))
            return x, state

    net = layers.Serial([layers.Serial([Spy("inner")], name="outer"), Spy("last")])
    jaxd2l.apply(net, {}, {}, X, key=KEY)
    want = [("outer", "inner"), ("last",)]
    assert seen == [
        (path, jax.random.key_data(layers.fold_path(KEY, path)).tolist()) for path in want
    ]
    crc32 = zlib.crc32(b"last")  # part of the interface: it must never change
    assert layers.fold_path(KEY, ("last",)) == jax.random.fold_in(KEY, crc32)


def test_old_style_keys_give_the_same_masks():
    drop = layers.Dropout("drop", 0.5)
    old = jax.random.PRNGKey(5)
    np.testing.assert_array_equal(masks(drop, 4, key=old), masks(drop, 4))


def test_dropout_in_evaluation_is_the_identity_and_needs_no_key(params):
    y, _ = jaxd2l.apply(NET, params, {}, X)
    plain = models.mlp((16, 12), num_classes=3)
    np.testing.assert_array_equal(y, jaxd2l.apply(plain, params, {}, X)[0])
    classic = layers.Dropout("drop", 0.25, classic=True)
    np.testing.assert_allclose(jaxd2l.apply(classic, {}, {}, X)[0], 0.75 * X, rtol=1e-6)


# --- transforms of a whole network --------------------------------------------------------------

TINY = models.lenet(num_classes=3)
IMAGES = jax.random.normal(jax.random.key(2), (4, 12, 12, 1))


@pytest.fixture(scope="module")
def tiny():
    return jaxd2l.init(TINY, jax.random.key(0), (12, 12, 1))[0]


def loss(params, x, net=TINY):
    y, _ = jaxd2l.apply(net, params, {}, x)
    return (y * y).mean()


@pytest.fixture(scope="module")
def reference(tiny):
    return jax.jit(jax.value_and_grad(loss))(tiny, IMAGES)


def close(got, want, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-6, **tolerance}
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), got, want)


def test_forward_mode_agrees_with_reverse_mode_and_second_order_with_differences(tiny, reference):
    _, grad = reference
    direction = jax.tree.map(lambda g: g / optax.tree.norm(grad), grad)

    @jax.jit
    def forward(params):
        return jax.jvp(lambda p: loss(p, IMAGES), (params,), (direction,))[1]

    close(forward(tiny), optax.tree.vdot(grad, direction))

    @jax.jit
    def hvp(params):  # forward over reverse
        return jax.jvp(jax.grad(lambda p: loss(p, IMAGES)), (params,), (direction,))[1]

    @jax.jit
    def reverse_over_reverse(params):
        return jax.grad(lambda p: optax.tree.vdot(jax.grad(loss)(p, IMAGES), direction))(params)

    close(hvp(tiny), reverse_over_reverse(tiny), atol=1e-5)


def test_rematerialisation_changes_nothing(tiny, reference):
    close(jax.jit(jax.value_and_grad(jax.checkpoint(loss)))(tiny, IMAGES), reference)


def test_gradients_inside_a_scan(tiny, reference):
    def step(params, x):
        value, grad = jax.value_and_grad(loss)(params, x)
        return params, (value, grad)

    _, out = jax.jit(lambda p, xs: jax.lax.scan(step, p, xs))(tiny, jnp.stack([IMAGES] * 2))
    for i in range(2):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], out), reference)


def test_vmap_over_parameters_is_an_ensemble(tiny, reference):
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), tiny)
    got = jax.jit(jax.vmap(jax.value_and_grad(loss), (0, None)))(both, IMAGES)
    close(jax.tree.map(lambda leaf: leaf[0], got), reference)


def test_gradients_of_shards_average_to_those_of_the_batch(tiny, reference, mesh):
    def on_a_device(params, x):
        return jax.lax.pmean(jax.value_and_grad(loss)(params, x), "data")

    shards = IMAGES.reshape(DEVICES, 1, 12, 12, 1)
    got = jax.pmap(on_a_device, "data", in_axes=(None, 0))(tiny, shards)
    close(jax.tree.map(lambda leaf: leaf[0], got), reference)
    sharded = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False
    )
    close(jax.jit(sharded)(tiny, IMAGES), reference)


# --- batch statistics ---------------------------------------------------------------------------


def normed(axis_name=None):
    return layers.Serial(
        [
            layers.Dense("dense", 5),
            layers.BatchNorm("bn", axis_name=axis_name),
            layers.Activation("tanh"),
            layers.Dense("output", 2),
        ]
    )


def test_batch_norm_over_devices_equals_the_whole_batch():
    params, state = jaxd2l.init(normed(), jax.random.key(0), (4,))
    y, new = jaxd2l.apply(normed(), params, state, X, train=True)

    def on_a_device(x):
        return jaxd2l.apply(normed("data"), params, state, x, train=True)

    got, everywhere = jax.pmap(on_a_device, "data")(X.reshape(DEVICES, 2, 4))
    np.testing.assert_allclose(got.reshape(8, 2), y, atol=1e-5)
    for i in range(DEVICES):
        close(jax.tree.map(lambda leaf, i=i: leaf[i], everywhere), new)


def test_padding_changes_neither_statistics_nor_the_gradient_of_a_masked_loss():
    net = normed()
    params, state = jaxd2l.init(net, jax.random.key(0), (4,))
    real = 5
    padded = X.at[real:].set(1e3)
    mask = jnp.arange(8) < real

    def total(params, x, mask):
        y, new = jaxd2l.apply(net, params, state, x, train=True, mask=mask)
        each = (y * y).sum(-1)
        weight = jnp.ones(len(x)) if mask is None else mask.astype(x.dtype)
        return (jnp.where(weight > 0, each, 0.0)).sum() / weight.sum(), new

    both = jax.value_and_grad(total, has_aux=True)
    close(both(params, padded, mask), both(params, X[:real], None), atol=1e-5)
