"""Augmentation and color spaces as layers of a network that trains, is stored and is spread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxd2l
from jaxd2l import data, layers, train
from jaxd2l.ops import augment as aug
from jaxd2l.ops import color, losses

DEVICES = 4
KEY = jax.random.key(3)
STEPS = (aug.RandomFlip(), aug.RandomShift(1), aug.RandomBrightness(0.3))
LAYER = layers.Augment("augment", STEPS)
X = jnp.asarray(np.random.RandomState(0).uniform(size=(8, 4, 5, 1)), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def run(net, x, examples=None, key=KEY):
    return jaxd2l.apply(net, {}, {}, x, key=key, train=True, examples=examples)[0]


@pytest.mark.smoke
def test_what_is_drawn_belongs_to_the_example():
    whole = run(LAYER, X)
    key = layers.fold_path(KEY, ("augment",))
    want = jax.jit(aug.augment, static_argnums=2)(key, X, aug.Compose(STEPS))
    np.testing.assert_allclose(whole, want, atol=1e-6)
    order = jnp.array([6, 1])
    np.testing.assert_array_equal(run(LAYER, X[order], order), whole[order])
    named = layers.Augment("other", STEPS)
    assert not np.array_equal(run(named, X), whole)
    same = layers.Serial([layers.Identity(), layers.Dropout("d", 0.0), LAYER])
    np.testing.assert_array_equal(run(same, X), whole)


def test_four_devices_draw_what_one_does():
    @functools.partial(jax.pmap, axis_name="data")
    def on_a_device(x):
        first = jax.lax.axis_index("data") * len(x)
        return jaxd2l.apply(
            LAYER, {}, {}, x, key=KEY, train=True, examples=first + jnp.arange(len(x))
        )[0]

    got = on_a_device(X.reshape(DEVICES, 2, *X.shape[1:]))
    np.testing.assert_array_equal(np.asarray(got).reshape(X.shape), run(LAYER, X))


def test_at_test_images_pass_and_are_brought_to_size():
    y, _ = jaxd2l.apply(LAYER, {}, {}, X)
    np.testing.assert_array_equal(y, X)
    crop = layers.Augment("augment", aug.RandomCrop((2, 3)))
    assert jaxd2l.output_shape(crop, (4, 5, 1)) == (2, 3, 1)
    np.testing.assert_array_equal(jaxd2l.apply(crop, {}, {}, X)[0], X[:, 1:3, 1:4])
    assert run(crop, X).shape == (8, 2, 3, 1)


def test_receptive_fields_are_those_of_a_test():
    conv = layers.Conv("conv", 2, 3)
    with_it = jaxd2l.summarize(layers.Serial([LAYER, conv]), (6, 6, 1)).rows[-1]
    without = jaxd2l.summarize(layers.Serial([conv]), (6, 6, 1)).rows[-1]
    assert with_it.receptive_field == without.receptive_field
    assert layers.Augment("a", aug.RandomCrop(3)).windows((6, 6, 1)) is None


def body(*front):
    return layers.Serial([*front, layers.Flatten(), layers.Dense("output", 10)])


def test_a_network_with_it_trains_is_stored_and_resumes(tmp_path):
    digits = data.load(size=(8, 8)).test.take(np.arange(64))
    net = body(layers.Augment("augment", [aug.RandomShift(1)]))
    fit = functools.partial(
        train.fit, loss=losses.softmax_cross_entropy, optimizer=optax.sgd(0.1), batch_size=32
    )
    whole = fit(net, digits, epochs=2)
    fit(net, digits, epochs=1, folder=tmp_path)
    resumed = fit(net, digits, epochs=2, folder=tmp_path, resume=True)
    kernel = whole.params["output"]["kernel"]
    np.testing.assert_array_equal(resumed.params["output"]["kernel"], kernel)
    plain = fit(body(), digits, epochs=2)
    assert not np.allclose(plain.params["output"]["kernel"], kernel, atol=1e-3)
    trained = train.load(tmp_path)
    assert trained.net == net
    y, _ = jaxd2l.apply(trained.net, trained.params, trained.state, digits.inputs[:5])
    want, _ = jaxd2l.apply(body(), whole.params, {}, digits.inputs[:5])
    np.testing.assert_allclose(y, want, atol=1e-5)  # a test sees no augmentation


def test_color_spaces_are_the_stack():
    x = jnp.asarray(np.random.RandomState(1).uniform(size=(2, 3, 4, 3)), jnp.float32)
    layer = layers.ColorSpaces(["hsv", "gray"])
    np.testing.assert_allclose(
        jaxd2l.apply(layer, {}, {}, x)[0], color.stack_color_spaces(x, ["hsv", "gray"]), atol=1e-6
    )
    assert jaxd2l.output_shape(layers.ColorSpaces(), (3, 4, 3)) == (3, 4, 14)
    assert repr(layer) == "ColorSpaces(spaces=('hsv', 'gray'))"


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: layers.Augment("a", []), ValueError, "Compose: steps is empty"),
        (lambda: layers.Augment("a", jnp.flip), TypeError, r"Augment 'a': expected an augment"),
        (lambda: layers.Augment("a/b", aug.RandomFlip()), ValueError, "must be letters, digits"),
        (
            lambda: jaxd2l.apply(LAYER, {}, {}, X, train=True),
            ValueError,
            "layer 'augment' is random when train=True: pass key=",
        ),
        (
            lambda: jaxd2l.output_shape(LAYER, (4, 5)),
            ValueError,
            r"the input must be images \(h, w, c\), got \(4, 5\)",
        ),
        (
            lambda: jaxd2l.apply(LAYER, {}, {}, jnp.zeros((2, 4, 5, 1), jnp.uint8)),
            TypeError,
            r"must be floating point in \[0, 1\], got uint8; convert it",
        ),
        (lambda: layers.ColorSpaces(["rgb", "rgb"]), ValueError, "must be different names"),
        (
            lambda: jaxd2l.output_shape(layers.ColorSpaces(), (4, 5, 1)),
            ValueError,
            r"ColorSpaces: the input must have 3 channels \(RGB\), got \(4, 5, 1\)",
        ),
    ],
)
def test_errors_say_what_to_do(make, error, told):
    with pytest.raises(error, match=told):
        make()
