"""The assertions: they hold where they should and say what is wrong where they should not."""

import re
from fractions import Fraction

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxd2l
from jaxd2l import models
from jaxd2l.geometry import Window, receptive_field
from jaxd2l.testing import assert_gradients_match, assert_output_shape, assert_receptive_field


def fails(assertion, *args, **options):
    """The message of the AssertionError that the call must end in."""
    with pytest.raises(AssertionError) as caught:
        assertion(*args, **options)
    return str(caught.value)


def pool(x, size=3, stride=2):
    return lax.reduce_window(x, 0.0, lax.add, (1, size, 1), (1, stride, 1), "VALID")


# --- shapes -----------------------------------------------------------------------------------


def test_shapes_of_pytrees_are_compared_leaf_by_leaf():
    def f(x):
        return {"pair": (x[:, 1:], x.sum()), "list": [x[0]]}

    right = {"pair": ((4, 2), ()), "list": [(3,)]}
    assert_output_shape(f, (4, 3), right)
    assert_output_shape(f, [4, 3], {"pair": ([4, None], ()), "list": [(np.int64(3),)]})
    wrong = {"pair": ((4, 3), (1,)), "list": [(3,)]}
    assert fails(assert_output_shape, f, (4, 3), wrong) == (
        "output['pair'][0] of shape (4, 2), wanted (4, 3): axis 1 is 2, wanted 3; "
        "output['pair'][1] of shape (), wanted (1,): 0 axes, wanted 1; "
        "on an input of shape (4, 3) float32"
    )
    told = fails(assert_output_shape, f, (4, 3), {"pair": (4, 2)})
    assert told.startswith("outputs of shapes {'list': [(3,)], 'pair': ((4, 2), ())}, wanted {'pai")
    assert "wanted ((4, 2), ()); on" in fails(assert_output_shape, jnp.sin, (4, 2), ((4, 2), ()))


def test_several_axes_and_the_dtype_are_told():
    told = fails(assert_output_shape, jnp.transpose, (2, 3, 4), (2, 3, 4), dtype=jnp.int8)
    assert told == (
        "output of shape (4, 3, 2), wanted (2, 3, 4): axis 0 is 4, wanted 2, axis 2 is 2, "
        "wanted 4; on an input of shape (2, 3, 4) int8"
    )


def test_nothing_is_run_to_know_a_shape():
    ran = []

    def f(x):
        jax.debug.callback(lambda: ran.append(1))
        return x @ x.T

    assert_output_shape(f, (10**6, 10**6), (10**6, 10**6), dtype=jnp.bfloat16)
    assert ran == []


def test_an_error_of_the_function_itself_is_passed_on_with_the_input_shape():
    with pytest.raises(TypeError, match="dot_general") as caught:
        assert_output_shape(lambda x: x @ jnp.ones((5, 2)), (3, 4), (3, 2))
    assert "in assert_output_shape, on an input of shape (3, 4) float32" in caught.value.__notes__


# --- receptive fields -------------------------------------------------------------------------


def test_receptive_fields_compare_only_what_is_given():
    assert_receptive_field(pool, (2, 32, 4), size=3)
    assert_receptive_field(pool, (2, 32, 4), jump=2.0)
    assert_receptive_field(pool, (2, 32, 4), start=0, size=(3,), jump=[Fraction(2)])
    assert_receptive_field(lambda x: x.repeat(2, 1), (2, 8, 4), size=1, jump=0.5)
    assert_receptive_field(lambda x: x - x.mean(1, keepdims=True), (2, 8, 4), size=8, jump=0)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"size": 4}, "of size 3, wanted 4"),
        ({"jump": 1}, "of jump 2, wanted 1"),
        ({"start": -1, "size": 3}, "of start 0, wanted -1"),
    ],
)
def test_another_field_is_told_with_all_of_it(wanted, told):
    assert fails(assert_receptive_field, pool, (2, 32, 4), **wanted) == (
        f"axis 1: receptive field {told} (size 3, jump 2, start 0); "
        "on an input of shape (2, 32, 4) float32"
    )


def test_one_number_for_each_axis_and_axes_of_the_users_choice():
    def f(x):  # (c, h, w), unbatched
        return x[:, ::2, 1:] + x[:, ::2, :-1]

    assert_receptive_field(f, (3, 8, 9), size=(1, 2), jump=(2, 1), axes=(1, 2))
    told = fails(assert_receptive_field, f, (3, 8, 9), size=2, jump=(2, 3), axes=(1, 2))
    assert re.findall(r"axis \d: receptive field of \w+ \d+, wanted \d", told) == [
        "axis 1: receptive field of size 1, wanted 2",
        "axis 2: receptive field of jump 1, wanted 3",
    ]
    with pytest.raises(ValueError, match=r"size must be one number or one per .* \(2\), got \(1"):
        assert_receptive_field(f, (3, 8, 9), size=(1, 2, 3), axes=(1, 2))


def test_a_network_of_the_library_has_the_field_of_its_summary():
    net = models.lenet()
    features = jaxd2l.layers.Serial(net.layers[:6])
    like = jax.eval_shape(lambda key: jaxd2l.init(features, key, (28, 28, 1)), jax.random.key(0))
    params, state = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), like)

    def f(x):
        return jaxd2l.apply(features, params, state, x)[0]

    assert_output_shape(f, (1, 28, 28, 1), (1, 5, 5, 16))
    assert_receptive_field(f, (1, 28, 28, 1), size=16, jump=4, start=-2)


# --- gradients --------------------------------------------------------------------------------


def with_rule(f, rule, kind=jax.custom_vjp):
    """A function of one array with a derivative of its own: `rule(x, direction)`."""
    g = kind(f)
    if kind is jax.custom_vjp:
        g.defvjp(lambda x: (f(x), x), lambda x, ct: (rule(x, ct),))
    else:
        g.defjvp(lambda primals, tangents: (f(*primals), rule(*primals, *tangents)))
    return g


X = np.linspace(-1.5, 2.0, 12).reshape(3, 4)


def test_right_rules_match_in_all_dtypes():
    sigmoid = jax.nn.sigmoid
    for kind, modes in ((jax.custom_vjp, ("rev",)), (jax.custom_jvp, ("fwd", "rev"))):
        g = with_rule(sigmoid, lambda x, t: t * sigmoid(x) * (1 - sigmoid(x)), kind)
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
            assert_gradients_match(g, sigmoid, jnp.asarray(X, dtype), modes=modes)
        with jax.enable_x64(True):
            assert_gradients_match(g, sigmoid, X, modes=modes, order=2, rtol=1e-12)


def test_a_wrong_reverse_rule_is_caught(x64):
    g = with_rule(jnp.sin, lambda x, ct: ct * jnp.cos(x) * (1 + 1e-6))
    told = fails(assert_gradients_match, g, jnp.sin, X, modes=["rev"])
    assert told == (
        "reverse mode, args[0] (3, 4) float64: 11 of 12 elements differ, most at [0, 3]: got "
        "1.9157226, wanted 1.9157207, off by 1.9157207e-06, allowed 2.8546463e-08"
    )
    assert_gradients_match(g, jnp.sin, X, modes=["rev"], order=0)
    assert_gradients_match(g, jnp.sin, X, modes=["rev"], rtol=1e-5)
    assert_gradients_match(g, jnp.sin, X, modes=["rev"], atol=1e-5)


def test_a_wrong_forward_rule_is_caught_though_reverse_is_right(x64):
    def linear(x):  # 3x, whose tangents are 2t and whose cotangents are 3c
        moved = jax.custom_derivatives.linear_call(
            lambda _, t: 2 * t, lambda _, c: 3 * c, (), x - lax.stop_gradient(x)
        )
        return 3 * lax.stop_gradient(x) + moved

    def reference(x):
        return 3 * x

    assert_gradients_match(linear, reference, X, modes=["rev"])
    told = fails(assert_gradients_match, linear, reference, X)
    assert told.startswith("forward mode, output (3, 4) float64: 12 of 12 elements differ")
    assert_gradients_match(linear, lambda x: 2 * x + lax.stop_gradient(x), X, modes=["fwd"])


def test_one_wrong_element_of_one_leaf_is_found(x64):
    def reference(params, x):
        return {"y": x @ params["w"] + params["b"], "count": jnp.int32(3)}

    @jax.custom_vjp
    def g(params, x):
        return reference(params, x)

    def backward(residuals, ct):
        params, x = residuals
        dw = (x.T @ ct["y"]).at[2, 1].mul(1.5)
        return {"w": dw, "b": ct["y"].sum(0)}, ct["y"] @ params["w"].T

    g.defvjp(lambda params, x: (reference(params, x), (params, x)), backward)
    params = {"w": X[:, :2].repeat(2, 0)[:4], "b": X[0, :2]}
    told = fails(assert_gradients_match, g, reference, params, X, modes=["rev"])
    assert told.startswith(
        "reverse mode, args[0]['w'] (4, 2) float64: 1 of 8 elements differ, most at [2, 1]: got "
    )
    assert_gradients_match(reference, reference, params, X, order=2)


def test_a_wrong_second_derivative_needs_the_second_order(x64):
    # The rule is right, but holds a part of itself back from being differentiated again.
    g = with_rule(jnp.sin, lambda x, t: t * lax.stop_gradient(jnp.cos(x)), jax.custom_jvp)
    assert_gradients_match(g, jnp.sin, X)
    told = fails(assert_gradients_match, g, jnp.sin, X, order=2)
    assert told.startswith("forward mode of forward mode, output (3, 4) float64: 12 of 12")
    told = fails(assert_gradients_match, g, jnp.sin, X, order=2, modes=["rev"])
    assert told.startswith("reverse mode of reverse mode, args[0] (3, 4)")


def test_a_rule_that_lacks_a_mode_is_an_error_that_says_where():
    g = with_rule(jnp.sin, lambda x, ct: ct * jnp.cos(x))
    with pytest.raises(TypeError, match="forward-mode") as caught:
        assert_gradients_match(g, jnp.sin, X)
    assert "in assert_gradients_match, where f is run or differentiated" in caught.value.__notes__


def test_other_outputs_are_told():
    check = assert_gradients_match
    assert fails(check, jnp.cos, jnp.sin, 0.5).startswith("output () float32: 1 of 1 elements diff")
    assert fails(check, lambda x: x.sum(0), lambda x: x.sum(1), X) == (
        "output is (4,) float32, wanted (3,) float32"
    )
    told = fails(check, lambda x: x.astype(jnp.bfloat16), lambda x: x, X)
    assert told == "output is (3, 4) bfloat16, wanted (3, 4) float32"
    told = fails(check, lambda x: (x, x), lambda x: {"y": x}, X)
    assert told == "f gives ['output[0]', 'output[1]'], the reference [\"output['y']\"]"
    told = fails(check, lambda x: (x, x.argmin()), lambda x: (x, x.argmax()), X)
    assert told == (
        "output[1] () int32: 1 of 1 elements differ, most: got 0, wanted 11, off by 11, allowed 0"
    )


def test_nan_fails_even_where_both_have_it_and_infinities_must_be_equal():
    def root(x):  # an infinite gradient at 0
        return jnp.sqrt(x)

    x = jnp.array([0.0, 1.0, 4.0])
    assert_gradients_match(root, root, x)
    told = fails(assert_gradients_match, root, lambda x: jnp.sqrt(x + 1e-12), x)
    assert told.startswith("forward mode, output (3,) float32: 1 of 3 elements differ, most at [0]")
    assert "got inf, wanted" in told
    steep = with_rule(jnp.sqrt, lambda x, ct: ct * jnp.where(x > 1, 0.3, 0.5 / jnp.sqrt(x)))
    told = fails(assert_gradients_match, steep, root, x, modes=["rev"])
    assert told.startswith("reverse mode, args[0] (3,) float32: 1 of 3 elements differ, most at [2")
    told = fails(assert_gradients_match, jnp.log, jnp.log, x - 1)
    assert told.startswith("output (3,) float32: 1 of 3 elements differ, most at [0]: got nan")

    def safe_value_bad_gradient(x):
        return jnp.where(x == 0, 0.0, x * jnp.sin(1 / x))

    told = fails(assert_gradients_match, safe_value_bad_gradient, safe_value_bad_gradient, x)
    assert told.startswith("reverse mode, args[0] (3,) float32: 1 of 3 elements differ, most at [0")


def test_tolerance_is_relative_to_the_largest_element_not_absolute():
    def reference(x):
        return 1e-6 * jnp.sin(x)

    assert fails(assert_gradients_match, lambda x: 1.01 * reference(x), reference, X)
    small = np.array([1e-9, 1.0])
    assert_gradients_match(lambda x: x + 1e-7, lambda x: x, small)  # rounding, beside a one
    assert fails(assert_gradients_match, lambda x: x + 1e-7, lambda x: x, small[:1])


def test_complex_arguments_and_integer_outputs():
    def f(z):
        return jnp.fft.fft(z), jnp.arange(3)

    def by_matrix(z):
        n = jnp.arange(z.size)
        return jnp.exp(-2j * jnp.pi * jnp.outer(n, n) / z.size) @ z, n[:3]

    z = X.ravel() + 1j * X.ravel()[::-1]
    assert_gradients_match(f, by_matrix, z)
    conjugated = with_rule(jnp.conj, lambda x, ct: ct)
    assert "reverse mode, args[0] (12,) complex64" in fails(
        assert_gradients_match, conjugated, jnp.conj, z, modes=["rev"]
    )


# --- misuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: assert_output_shape(jnp.sin, (2,), 2), TypeError, "expected must be .* got 2 in"),
        (lambda: assert_output_shape(jnp.sin, (2,), {"a": (1.5,)}), TypeError, "got 1.5 in it"),
        (lambda: assert_output_shape(jnp.sin, 2, (2,)), TypeError, "must be a tuple of .*, got 2"),
        (lambda: assert_output_shape(jnp.sin, (2.0,), (2,)), TypeError, "each size must be an int"),
        (lambda: assert_receptive_field(pool, (1, 9, 1)), TypeError, "give size, jump or start"),
        (lambda: assert_receptive_field(pool, (1, 9, 1), size="3"), TypeError, "number, got '3'"),
        (lambda: assert_receptive_field(pool, (1, 9, 1), size=True), TypeError, "number, got True"),
        (
            lambda: assert_receptive_field(lambda x: (x, x), (1, 9, 1), size=1),
            ValueError,
            "f returns several arrays; pick one",
        ),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin), ValueError, "give the arguments"),
        (
            lambda: assert_gradients_match(jnp.sin, jnp.sin, {"labels": np.arange(3)}),
            TypeError,
            r"args\[0\]\['labels'\] is int32, and gradients need floating point; close over it",
        ),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin, 1.0, order=-1), ValueError, "got -1"),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin, 1.0, modes="rev"), ValueError, "'rev'"),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin, 1.0, modes=["up"]), ValueError, "'up'"),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin, 1.0, atol=-1), ValueError, "atol must"),
        (lambda: assert_gradients_match(jnp.sin, jnp.sin, 1.0, rtol=np.nan), ValueError, "rtol m"),
    ],
)
def test_misuse_is_refused(call, error, told):
    with pytest.raises(error, match=told):
        call()


# --- models of other libraries ----------------------------------------------------------------

STEM = [Window(5, 2, 2), Window(2, 2)]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (5, 5), strides=2, padding=2)(x))
        return nn.avg_pool(x, (2, 2), (2, 2))


def linen():
    model = Linen()
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    params = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), params)
    return lambda x: model.apply(params, x), (1, 16, 16, 1), None


def nnx_model():
    conv = nnx.Conv(1, 4, (5, 5), strides=2, padding=2, rngs=nnx.Rngs(0))
    return lambda x: nnx.avg_pool(nnx.relu(conv(x)), (2, 2), (2, 2)), (1, 16, 16, 1), None


def equinox():
    conv = eqx.nn.Conv2d(1, 4, 5, stride=2, padding=2, key=jax.random.key(0))
    pooling = eqx.nn.AvgPool2d(2, 2)
    return lambda x: pooling(jax.nn.relu(conv(x))), (1, 16, 16), (1, 2)


def haiku():
    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 5, stride=2, padding=[(2, 2), (2, 2)])(x))
        return hk.avg_pool(x, (2, 2, 1), (2, 2, 1), "VALID")

    model = hk.without_apply_rng(hk.transform(forward))
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    params = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), params)
    return lambda x: model.apply(params, x), (1, 16, 16, 1), None


@pytest.mark.parametrize("make", [linen, nnx_model, equinox, haiku])
def test_models_of_other_libraries(make):
    f, shape, axes = make()
    field = receptive_field(STEM)
    assert_output_shape(f, shape, (4, 4, 4) if axes else (1, 4, 4, 4))
    assert_receptive_field(f, shape, field.size, field.jump, field.start, axes=axes)
    assert "wanted 8" in fails(assert_receptive_field, f, shape, size=8, axes=axes)
    assert "wanted 5" in fails(assert_output_shape, f, shape, (4, 5, 4) if axes else (1, 5, 4, 4))


def test_gradients_of_a_flax_model_match_those_of_ours():
    module = nn.LayerNorm(epsilon=1e-5)
    params = {"scale": jnp.linspace(0.5, 2.0, 4), "bias": jnp.linspace(-1.0, 1.0, 4)}
    net = jaxd2l.layers.LayerNorm("norm")
    assert_gradients_match(
        lambda params, x: jaxd2l.apply(net, {"norm": params}, {}, x)[0],
        lambda params, x: module.apply({"params": params}, x),
        params,
        X,
        order=2,
    )
