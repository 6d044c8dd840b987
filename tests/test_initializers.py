"""Initialisers: statistics, fans, records, errors, and what equal weights do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxd2l.ops import initializers as inits
from jaxd2l.ops.activations import sigmoid
from jaxd2l.ops.initializers import (
    Constant,
    FanInUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    Normal,
    Orthogonal,
    Table,
    Uniform,
    XavierNormal,
    XavierUniform,
    fan_in_out,
    log_frequencies,
    log_odds,
)
from jaxd2l.ops.linear import dense
from jaxd2l.records import dump, load

SHAPE = (300, 200)  # fan_in 300, fan_out 200

# record, standard deviation on paper, bound of the support (None: unbounded)
RANDOM = [
    (Normal(), 0.01, None),
    (Normal(2.0), 2.0, None),
    (Uniform(-0.5, 1.5), 2 / np.sqrt(12), None),
    (XavierUniform(), np.sqrt(2 / 500), np.sqrt(6 / 500)),
    (XavierUniform(2.0), 2 * np.sqrt(2 / 500), 2 * np.sqrt(6 / 500)),
    (XavierNormal(), np.sqrt(2 / 500), None),
    (XavierNormal(0.5), 0.5 * np.sqrt(2 / 500), None),
    (HeNormal(), np.sqrt(2 / 300), None),
    (HeUniform(), np.sqrt(2 / 300), np.sqrt(6 / 300)),
    (LecunNormal(), np.sqrt(1 / 300), None),
    (FanInUniform(), np.sqrt(1 / 900), np.sqrt(1 / 300)),
    (Orthogonal(), np.sqrt(1 / 300), None),
]
names = [repr(row[0]) for row in RANDOM]
EVERY = [row[0] for row in RANDOM] + [Constant(), Constant(1.5)]


@pytest.mark.parametrize(("init", "std", "bound"), RANDOM, ids=names)
def test_mean_deviation_and_bound(init, std, bound, key):
    w = np.asarray(init(key, SHAPE), np.float64)
    mean = 0.5 if isinstance(init, Uniform) else 0.0
    assert w.mean() == pytest.approx(mean, abs=5 * std / np.sqrt(w.size))
    assert w.std() == pytest.approx(std, rel=0.015)
    if bound is not None:
        assert 0.999 * bound < np.abs(w).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("init", [Normal(), XavierNormal(), HeNormal(), LecunNormal()], ids=repr)
def test_normals_are_not_truncated(init, key):
    """Flax cuts at two deviations; here 4.55 % lie outside, as for a normal."""
    w = np.asarray(init(key, SHAPE))
    assert (np.abs(w) > 2 * w.std()).mean() == pytest.approx(0.0455, abs=0.004)


@pytest.mark.parametrize("init", [*EVERY, Table(((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))], ids=repr)
def test_shape_dtype_key_and_jit(init, key, strict_promotion):
    a = init(key, (2, 3))
    assert a.shape == (2, 3)
    assert a.dtype == jnp.float32
    np.testing.assert_array_equal(a, init(key, (2, 3)))
    compiled = jax.jit(lambda init, key: init(key, (2, 3)))(init, key)  # the record is static
    np.testing.assert_allclose(compiled, a, rtol=1e-6)
    if not isinstance(init, Constant | Table):
        assert (np.asarray(a) != np.asarray(init(jax.random.key(1), (2, 3)))).all()
    half = init(key, (2, 3), jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, a.astype(jnp.bfloat16))


def test_float64(x64, key):
    for init in EVERY:
        assert init(key, (2, 3), jnp.float64).dtype == jnp.float64
    want = 0.1  # not the float32 nearest to it
    assert float(Constant(want)(key, (1,), jnp.float64)[0]) == want
    assert float(Table((want,))(key, (1,), jnp.float64)[0]) == want


@pytest.mark.parametrize("init", EVERY, ids=repr)
def test_records_are_equal_hashable_and_stored(init):
    again = load(dump(init))
    assert again == init
    assert hash(again) == hash(init)
    assert eval(repr(init), vars(inits)) == init


def test_vmap_over_keys_makes_an_ensemble():
    keys = jax.random.split(jax.random.key(0), 4)
    many = jax.vmap(lambda k: LecunNormal()(k, (5, 3)))(keys)
    np.testing.assert_allclose(many[2], LecunNormal()(keys[2], (5, 3)), rtol=1e-6)


# ---- Fans --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 6), st.integers(1, 6))
def test_fan_is_the_number_of_inputs_and_outputs_of_a_unit(window, inputs, outputs):
    """Counted: an output reads `fan_in` numbers, an input is read by `fan_out` (stride 1)."""
    taps = len(list(np.ndindex(*window)))
    assert fan_in_out((*window, inputs, outputs)) == (taps * inputs, taps * outputs)


def test_a_given_fan_is_used_whatever_the_shape(key):
    """A bias from its kernel's fan, as PyTorch does; a grouped or transposed kernel."""
    bias = np.asarray(FanInUniform()(key, (20_000,), fan=(784, 256)))
    assert np.abs(bias).max() == pytest.approx(1 / 28, rel=1e-3)
    w = np.asarray(XavierNormal()(key, SHAPE, fan=(30, 20)))
    assert w.std() == pytest.approx(np.sqrt(2 / 50), rel=0.015)
    scalar = HeNormal()(key, (), fan=(2, 1))
    assert scalar.shape == ()


def test_one_over_root_n_means_the_fan_in(key):
    """The notes take n = 256 units and so 1/16 for the first layer; its fan-in is 784: 1/28."""
    first = np.asarray(LecunNormal()(key, (784, 256)))
    second = np.asarray(LecunNormal()(key, (256, 100)))
    assert first.std() == pytest.approx(1 / 28, rel=0.01)
    assert second.std() == pytest.approx(1 / 16, rel=0.02)


def test_lecun_keeps_the_variance_and_he_keeps_it_through_relu(key):
    x = jax.random.normal(jax.random.key(1), (500, 784))
    assert float(dense(x, LecunNormal()(key, (784, 256))).var()) == pytest.approx(1, rel=0.05)
    h = x
    for i in range(10):
        h = jax.nn.relu(dense(h, HeNormal()(jax.random.fold_in(key, i), (h.shape[-1], 784))))
    assert 0.5 < float((h**2).mean()) < 2


def test_a_deviation_of_1_saturates_and_a_small_one_does_not(key):
    """0.1 and 0.01 work, 1 does not: the pre-activations are 28 times too large."""
    x = jax.random.normal(jax.random.key(1), (200, 784))
    slopes = {}
    for std in (0.01, 0.1, 1.0):
        s = sigmoid(dense(x, Normal(std)(key, (784, 256))))
        slopes[std] = float((s * (1 - s)).mean())
    assert slopes[0.01] > 0.24
    assert slopes[0.1] > 0.08
    assert slopes[1.0] < 0.02


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5)])
def test_orthogonal(shape, key):
    w = np.asarray(Orthogonal(2.0)(key, shape)).reshape(-1, shape[-1])
    small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


# ---- Biases ------------------------------------------------------------------------------------


def test_log_frequencies_start_a_softmax_at_the_frequencies(key):
    counts = np.array([50.0, 30.0, 20.0])
    bias = log_frequencies(counts)(key, (3,))
    np.testing.assert_allclose(jax.nn.softmax(bias), counts / 100, rtol=1e-5)


def test_log_odds_start_sigmoids_at_the_frequencies(key):
    p = (0.5, 0.01, 0.999, 1e-12)
    table = log_odds(p)
    np.testing.assert_allclose(sigmoid(table(key, (4,))), p, rtol=1e-4)
    assert load(dump(table)) == table


def test_table_takes_nested_values_and_arrays():
    assert Table([[1, 2], [3, 4]]).values == ((1.0, 2.0), (3.0, 4.0))
    assert Table(np.arange(2.0)) == Table((0.0, 1.0))


# ---- Equal weights -----------------------------------------------------------------------------


def train(params, steps=20, rate=0.5):
    x = jax.random.normal(jax.random.key(7), (16, 3))
    y = jnp.sin(x.sum(1, keepdims=True))

    def loss(p):
        h = jnp.tanh(dense(x, p["w1"], p["b1"]))
        return jnp.mean((dense(h, p["w2"], p["b2"]) - y) ** 2)

    @jax.jit
    def step(p):
        return jax.tree.map(lambda w, g: w - rate * g, p, jax.grad(loss)(p))

    for _ in range(steps):
        params = step(params)
    return params, jax.grad(loss)(params)


def mlp_params(init):
    keys = jax.random.split(jax.random.key(0))
    return {
        "w1": init(keys[0], (3, 5)),
        "b1": jnp.zeros(5),
        "w2": init(keys[1], (5, 1)),
        "b2": jnp.zeros(1),
    }


def test_equal_weights_stay_equal():
    """Symmetry: hidden units that start the same are one unit for ever. Zero biases are fine."""
    params, _ = train(mlp_params(Constant(0.3)))
    np.testing.assert_allclose(params["w1"], params["w1"][:, :1] * np.ones((1, 5)), rtol=1e-5)
    assert np.linalg.matrix_rank(np.asarray(params["w1"]), tol=1e-4) == 1
    params, _ = train(mlp_params(Normal(0.3)))
    assert np.linalg.matrix_rank(np.asarray(params["w1"]), tol=1e-4) == 3


def test_zero_weights_never_leave_zero():
    params, gradients = train(mlp_params(Constant()))
    for name in ("w1", "b1", "w2"):
        np.testing.assert_array_equal(params[name], 0)
        np.testing.assert_array_equal(gradients[name], 0)
    assert params["b2"] != 0  # only the output bias learns


# ---- Errors ------------------------------------------------------------------------------------

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normal(-0.1), r"Normal: std must be finite and at least 0\.0, got -0\.1"),
        (lambda: Normal(float("nan")), r"Normal: std must be finite .* got nan"),
        (lambda: Constant(float("inf")), r"Constant: value must be finite, got inf"),
        (lambda: XavierUniform(-1), r"XavierUniform: gain must be finite and at least"),
        (lambda: Orthogonal(-1), r"Orthogonal: gain must be finite and at least"),
        (lambda: Uniform(1.0, 1.0), r"Uniform: low must be below high, got 1\.0 and 1\.0"),
        (lambda: fan_in_out((3,)), r"fan_in_out: a kernel must have shape \(\.\.\., in, out\)"),
        (lambda: HeNormal()(KEY, (3,)), r"HeNormal: fan_in_out: .* got \(3,\); give fan="),
        (lambda: LecunNormal()(KEY, (0, 3)), r"sizes from 1, got \(0, 3\)"),
        (
            lambda: HeNormal()(KEY, (3, 3), fan=(0, 3)),
            r"HeNormal: fan must be \(fan_in, fan_out\), both from 1, got \(0, 3\)",
        ),
        (lambda: Orthogonal()(KEY, (3,)), r"Orthogonal: shape must be \(\.\.\., in, out\)"),
        (
            lambda: Table((1.0, 2.0))(KEY, (3,)),
            r"Table: holds values of shape \(2,\), asked for shape \(3,\)",
        ),
        (lambda: Table(((1.0, 2.0), (3.0,))), r"Table: values must be numbers in a rectangular"),
        (lambda: Table(("a",)), r"Table: values must be numbers in a rectangular"),
        (lambda: Table((float("nan"),)), r"Table: values must be a tuple of finite numbers"),
        (lambda: Table(1.0), r"Table: values must be a tuple of finite numbers"),
        (lambda: log_odds((0.5, 1.0)), r"log_odds: frequencies must lie strictly between 0 and 1"),
        (lambda: log_odds(0.5), r"log_odds: frequencies must have shape \(out,\), got \(\)"),
        (
            lambda: log_frequencies((3, 0)),
            r"log_frequencies: .* above 0, got \[3\.0, 0\.0\]; add 1",
        ),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"Normal: std must be a number, got '1'"):
        Normal("1")
    with pytest.raises(TypeError, match=r"Constant: value must be a number, got True"):
        Constant(True)
    for init in (Constant(), Normal(), XavierUniform(), Orthogonal(), Table((1.0,))):
        with pytest.raises(TypeError, match="dtype must be floating point, got int32"):
            init(KEY, (2, 2), jnp.int32)
