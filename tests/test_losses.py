import importlib.util
import math
import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxd2l.ops import losses
from jaxd2l.ops.labels import check_labels, pick
from jaxd2l.ops.penalties import l1_penalty, l2_penalty

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _inputs():
    spec = importlib.util.spec_from_file_location("make_losses", GOLDEN / "make_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.inputs()


GIVEN = _inputs()


def _cases(dtype=np.float64, through=np.float64):
    """name -> (function of one array, that array), the arguments of the golden file."""
    g = {
        k: jnp.asarray(v if v.dtype.kind == "i" else v.astype(through).astype(dtype))
        for k, v in GIVEN.items()
    }
    z, p, q = g["logits"], g["probabilities"], g["other_probabilities"]
    t, y, labels = g["other_logits"], g["targets"], g["labels"]
    return {
        "squared_loss": (lambda a: losses.squared_loss(a, y), z),
        "softmax_cross_entropy": (lambda a: losses.softmax_cross_entropy(a, labels), z),
        "softmax_cross_entropy_with_probabilities": (
            lambda a: losses.softmax_cross_entropy_with_probabilities(a, p),
            z,
        ),
        "cross_entropy": (lambda a: losses.cross_entropy(a, labels), q),
        "sigmoid_cross_entropy": (lambda a: losses.sigmoid_cross_entropy(a, g["binary"]), z),
        "kl_divergence": (lambda a: losses.kl_divergence(p, a), q),
        "kl_divergence_with_logits": (lambda a: losses.kl_divergence_with_logits(t, a), z),
        "gaussian_negative_log_likelihood": (
            lambda a: losses.gaussian_negative_log_likelihood(a, y, g["variance"]),
            t,
        ),
        "distillation_loss": (lambda a: losses.distillation_loss(a, t, labels, 3.0, 0.7), z),
    }


NAMES = sorted(_cases())


def _slope(loss):
    """The gradient of the sum of a loss, compiled as one program."""
    return jax.jit(jax.grad(lambda a: loss(a).sum()))


# --- against PyTorch, transforms, dtypes ----------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_equal_pytorch(name, x64, strict_promotion):
    with np.load(GOLDEN / "losses.npz", allow_pickle=False) as golden:
        value, gradient = golden[name], golden[f"{name}.gradient"]
    loss, x = _cases()[name]
    computed, slope = jax.jit(lambda a: (loss(a), jax.grad(lambda b: loss(b).sum())(a)))(x)
    assert computed.dtype == slope.dtype == jnp.float64
    np.testing.assert_allclose(computed, value, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(slope, gradient, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_pytorch_float64_and_is_jit_and_vmap_safe(name, strict_promotion):
    with np.load(GOLDEN / "losses.npz", allow_pickle=False) as golden:
        value, gradient = golden[name], golden[f"{name}.gradient"]
    loss, x = _cases(np.float32)[name]
    both = jax.jit(lambda a: (loss(a), jax.grad(lambda b: loss(b).sum())(a)))
    computed, slope = both(x)
    assert computed.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(computed, value, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(slope, gradient, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(loss(x), computed, rtol=1e-6, atol=1e-6)  # eager


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_stays_bfloat16_and_loses_no_more_than_rounding(name, strict_promotion):
    loss, x = _cases(jnp.bfloat16)[name]
    value = jax.jit(loss)(x)
    assert value.dtype == jnp.bfloat16
    wide, y = _cases(np.float32, through=jnp.bfloat16)[name]
    np.testing.assert_allclose(value.astype(jnp.float32), jax.jit(wide)(y), rtol=0.03, atol=0.03)


def test_gradients_of_both_modes_and_second_order(x64):
    # All in one function, since each transformation is compiled on its own.
    rng = np.random.RandomState(3)
    z, t, y = (jnp.asarray(rng.randn(2, 4)) for _ in range(3))
    p, q = (jnp.asarray(rng.dirichlet(np.full(4, 5.0), 2)) for _ in range(2))
    labels, variance = jnp.array([3, 1]), jnp.asarray(rng.rand(2, 4) + 0.5)

    @jax.jit
    def everything(z, t, p, q, variance):
        return (
            losses.squared_loss(z, t),
            losses.gaussian_negative_log_likelihood(z, t, variance),
            losses.softmax_cross_entropy(z, labels),
            losses.softmax_cross_entropy_with_probabilities(z, p),
            losses.cross_entropy(p, labels),
            losses.clipped_cross_entropy(p, labels),
            losses.sigmoid_cross_entropy(z, p),
            losses.entropy(p),
            losses.kl_divergence(p, q),
            losses.kl_divergence_with_logits(z, t),
            losses.distillation_loss(z, t, labels, 2.0, 0.5),
            pick(y * z, labels),
            l2_penalty({"z": z}),
            l1_penalty({"z": z}),
            losses.masked_mean(z, y > 0),
        )

    arguments = (z, t, p, q, variance)
    check_grads(everything, arguments, order=1, modes=["fwd"])
    check_grads(everything, arguments, order=2, modes=["rev"], atol=2e-4, rtol=2e-4)


def test_vmap_over_the_batch_gives_the_same_values():
    z = jnp.asarray(GIVEN["logits"], jnp.float32)
    p = jnp.asarray(GIVEN["probabilities"], jnp.float32)
    q = jnp.asarray(GIVEN["other_probabilities"], jnp.float32)
    labels = jnp.asarray(GIVEN["labels"])

    def all_of(z, p, q, labels):
        return (
            losses.softmax_cross_entropy(z, labels),
            losses.softmax_cross_entropy_with_probabilities(z, p),
            losses.cross_entropy(q, labels),
            losses.clipped_cross_entropy(q, labels),
            losses.kl_divergence(p, q),
            losses.entropy(p),
            losses.distillation_loss(z, q, labels, 2.0, 0.5),
            losses.sigmoid_cross_entropy(z, p),
        )

    for whole, one in zip(
        jax.jit(all_of)(z, p, q, labels), jax.jit(jax.vmap(all_of))(z, p, q, labels), strict=True
    ):
        np.testing.assert_allclose(whole, one, rtol=1e-6, atol=1e-6)


def test_leading_axes_beyond_the_batch():
    z = jnp.asarray(GIVEN["logits"], jnp.float32)
    labels = jnp.asarray(GIVEN["labels"])
    flat = losses.softmax_cross_entropy(z, labels)
    deep = losses.softmax_cross_entropy(z.reshape(2, 4, 5), labels.reshape(2, 4))
    np.testing.assert_array_equal(deep, flat.reshape(2, 4))
    single = losses.softmax_cross_entropy(z[0], labels[0])
    np.testing.assert_allclose(single, flat[0], rtol=1e-6)


# --- values of the notes, and closed forms --------------------------------------------------------


def test_pick_and_cross_entropy_print_the_values_of_the_notes():
    p = jnp.array([[0.1, 0.3, 0.6], [0.3, 0.2, 0.5]])
    labels = jnp.array([0, 2])
    np.testing.assert_array_equal(pick(p, labels), np.float32([0.1, 0.5]))
    np.testing.assert_allclose(losses.cross_entropy(p, labels), [2.3026, 0.6931], atol=5e-5)
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(jnp.log(p), labels), [2.3026, 0.6931], atol=5e-5
    )


def test_derivatives_of_cross_entropy_and_of_squared_error_through_a_sigmoid(x64):
    z, labels, y = GIVEN["logits"], GIVEN["labels"], GIVEN["binary"]
    weights = 3 * y  # targets that do not sum to 1: p sum(y) - y

    @jax.jit
    def slopes(z):
        functions = (
            lambda a: losses.softmax_cross_entropy(a, labels),
            lambda a: losses.softmax_cross_entropy_with_probabilities(a, weights),
            lambda a: losses.sigmoid_cross_entropy(a, y),
            lambda a: losses.squared_loss(jax.nn.sigmoid(a), y),
        )
        return [_slope(f)(z) for f in functions]

    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    a = np.where(z > 0, 1, np.exp(-np.abs(z))) / (1 + np.exp(-np.abs(z)))
    expected = [
        p - np.eye(5)[labels],
        p * weights.sum(-1, keepdims=True) - weights,
        a - y,
        (a - y) * a * (1 - a),
    ]
    for computed, wanted in zip(slopes(z), expected, strict=True):
        np.testing.assert_allclose(computed, wanted, atol=1e-14)


def test_sigmoid_cross_entropy_is_softplus_minus_yz_and_softmax_of_two_classes(x64):
    z = np.linspace(-30, 30, 61)

    @jax.jit
    def both(z, y):
        two, p = jnp.stack([jnp.zeros_like(z), z], -1), jnp.stack([1 - y, y], -1)
        binary = losses.sigmoid_cross_entropy(z, y)
        return binary, losses.softmax_cross_entropy_with_probabilities(two, p)

    for y in (0.0, 0.3, 1.0):
        value, soft = both(z, np.full(z.shape, y))
        np.testing.assert_allclose(value, np.logaddexp(z, 0) - y * z, atol=1e-14)
        np.testing.assert_allclose(value, soft, atol=1e-13)


def test_sigmoid_cross_entropy_keeps_its_digits_in_float32():
    z = jnp.array([20.0, -20.0, 0.0, 0.0])
    y = jnp.array([1.0, 0.0, 1.0, 0.0])
    value = losses.sigmoid_cross_entropy(z, y)
    np.testing.assert_allclose(value[:2], math.log1p(math.exp(-20)), rtol=1e-6)
    assert (jax.nn.softplus(z) - y * z)[0] == 0.0  # the plain formula cancels
    slope = jax.grad(losses.sigmoid_cross_entropy)
    slopes, bends = jax.jit(jax.vmap(lambda z, y: (slope(z, y), jax.grad(slope)(z, y))))(z, y)
    np.testing.assert_allclose(slopes[2:], [-0.5, 0.5])
    np.testing.assert_allclose(bends[2:], 0.25)


def test_sigmoid_reaches_0_and_1_in_float32_so_logits_are_needed():
    # E9: never 0 or 1 on paper; in float32 it is, and the textbook formula then fails.
    z = jnp.array([20.0, -110.0])
    a = jax.nn.sigmoid(z)
    np.testing.assert_array_equal(a, [1.0, 0.0])
    y = jnp.array([0.0, 1.0])
    assert np.isinf(-(y * jnp.log(a) + (1 - y) * jnp.log1p(-a))).all()
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(z, y), [20.0, 110.0], rtol=1e-6)


def test_log_of_zero_is_minus_infinity_and_nan_comes_later():
    # E8: log 0 is not nan; 0 * inf and inf - inf are.
    p = jnp.array([[0.0, 1.0]])
    assert losses.cross_entropy(p, jnp.array([0]))[0] == jnp.inf
    assert np.isnan(jnp.array(0.0) * jnp.log(jnp.array(0.0)))
    assert np.isnan(jnp.log(jnp.array(0.0)) - jnp.log(jnp.array(0.0)))
    np.testing.assert_array_equal(losses.entropy(p), [0.0])


def test_clipped_cross_entropy_is_finite_but_biased():
    labels = jnp.array([0])
    z = jnp.array([[-30.0, 0.0]])
    through = _slope(lambda a: losses.clipped_cross_entropy(jax.nn.softmax(a), labels))(z)
    honest = _slope(lambda a: losses.softmax_cross_entropy(a, labels))(z)
    p = math.exp(-30) / (1 + math.exp(-30))
    np.testing.assert_allclose(honest[0, 0], -1.0, rtol=1e-6)
    np.testing.assert_allclose(through[0, 0], -p / (p + 1e-5), rtol=1e-5)  # 1e-8 of the true one
    assert abs(through[0, 0]) < 1e-7
    np.testing.assert_allclose(losses.softmax_cross_entropy(z, labels), 30.0, rtol=1e-6)
    value = losses.clipped_cross_entropy(jnp.array([[0.0, 1.0]]), labels)
    np.testing.assert_allclose(value, -math.log(1e-5), rtol=1e-6)
    near = jnp.array([[0.0, 0.5]])  # where p is not small the two agree
    np.testing.assert_allclose(
        losses.clipped_cross_entropy(jax.nn.softmax(near), labels),
        losses.softmax_cross_entropy(near, labels),
        rtol=1e-4,
    )


def test_cross_entropy_escapes_saturation_where_squared_error_is_stuck():
    # C33: y = 0, z = 8, 200 steps of size 1.
    y = jnp.array(0.0)

    def descend(loss):
        return jax.lax.fori_loop(0, 200, lambda _, z: z - jax.grad(loss)(z), jnp.array(8.0))

    assert abs(descend(lambda z: losses.sigmoid_cross_entropy(z, y)) - -5.2) < 0.05
    assert abs(descend(lambda z: losses.squared_loss(jax.nn.sigmoid(z), y)) - 7.86) < 0.15


# --- distributions --------------------------------------------------------------------------------

simplex = st.lists(st.floats(0.01, 10), min_size=6, max_size=6).map(
    lambda v: np.asarray(v) / np.sum(v)
)


@pytest.fixture(scope="module")
def information():
    def compute(p, q):
        cross = losses.softmax_cross_entropy_with_probabilities(jnp.log(q), p)
        return losses.kl_divergence(p, q), losses.kl_divergence(q, p), losses.entropy(p), cross

    return jax.jit(compute)


@hypothesis.given(simplex, simplex)
def test_divergence_is_not_negative_and_cross_entropy_is_entropy_plus_it(information, p, q):
    with jax.enable_x64(True):
        forward, backward, entropy, cross = information(p, q)
        assert forward >= -1e-15
        assert backward >= -1e-15
        np.testing.assert_allclose(cross, entropy + forward, atol=1e-12)
        np.testing.assert_allclose(forward, np.sum(p * np.log(p / q)), atol=1e-12)
        itself, _, _, cross_itself = information(p, p)
        assert itself == 0
        np.testing.assert_allclose(cross_itself, entropy, atol=1e-12)
        assert 0 <= entropy <= math.log(6) + 1e-12


def test_divergence_is_not_symmetric_and_bounds():
    p, q = jnp.array([0.9, 0.1]), jnp.array([0.5, 0.5])
    forward, backward = losses.kl_divergence(p, q), losses.kl_divergence(q, p)
    np.testing.assert_allclose([forward, backward], [0.368064, 0.510826], rtol=1e-5)
    for c in (2, 10, 1000):
        uniform = losses.softmax_cross_entropy(jnp.zeros((1, c)), jnp.array([c - 1]))
        np.testing.assert_allclose(uniform, math.log(c), rtol=1e-6)
    one_hot, q = jnp.array([0.0, 1.0, 0.0]), jnp.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(losses.kl_divergence(one_hot, q), -math.log(0.5), rtol=1e-6)


def test_minimising_cross_entropy_is_minimising_the_divergence():
    # C34: they differ by the entropy of the target, which does not depend on the logits.
    z = jnp.asarray(GIVEN["logits"][3:], jnp.float32)
    p = jnp.asarray(GIVEN["probabilities"][3:], jnp.float32)

    def cross(a):
        return losses.softmax_cross_entropy_with_probabilities(a, p)

    def divergence(a):
        return losses.kl_divergence(p, jax.nn.softmax(a))

    @jax.jit
    def compute(z):
        difference = cross(z) - divergence(z) - losses.entropy(p)
        return _slope(cross)(z), _slope(divergence)(z), difference

    slope, other, difference = compute(z)
    np.testing.assert_allclose(slope, other, atol=2e-6)
    np.testing.assert_allclose(difference, 0, atol=1e-5)


def test_probabilities_of_zero_give_finite_values_and_gradients():
    p, q = jnp.array([0.0, 0.25, 0.75]), jnp.array([0.0, 0.5, 0.5])
    assert np.isfinite(losses.kl_divergence(p, q))
    slopes = [jax.grad(losses.entropy)(p), *jax.grad(losses.kl_divergence, (0, 1))(p, q)]
    assert np.isfinite(slopes).all()
    np.testing.assert_array_equal([s[0] for s in slopes], 0.0)
    assert losses.kl_divergence(q, jnp.array([0.0, 0.0, 1.0])) == jnp.inf


def test_masked_logits_give_finite_values_and_gradients():
    inf = jnp.inf
    z, p = jnp.array([[0.0, -inf, 1.0]]), jnp.array([[0.5, 0.0, 0.5]])
    functions = [
        lambda a: losses.softmax_cross_entropy(a, jnp.array([2])),
        lambda a: losses.softmax_cross_entropy_with_probabilities(a, p),
        lambda a: losses.kl_divergence_with_logits(a, jnp.array([[1.0, -inf, 0.0]])),
        lambda a: losses.kl_divergence_with_logits(a, jnp.array([[1.0, 2.0, 0.0]])),
        lambda a: losses.distillation_loss(a, jnp.array([[1.0, -inf, 0.0]]), jnp.array([0]), 2, 1),
    ]
    for f in functions:
        value, slope = jax.jit(jax.value_and_grad(lambda a, f=f: f(a).sum()))(z)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
        assert slope[0, 1] == 0
    target = _slope(lambda a: losses.softmax_cross_entropy_with_probabilities(z, a))(p)
    assert np.isfinite(target).all()
    sure = losses.softmax_cross_entropy_with_probabilities(z, jnp.array([[0.0, 1.0, 0.0]]))
    assert sure[0] == jnp.inf


# --- likelihoods and priors -----------------------------------------------------------------------


def test_bernoulli_likelihood_is_binary_cross_entropy_and_gaussian_is_squared_error(x64):
    # C35.
    y = np.array([1.0, 0.0, 1.0, 1.0])
    z = np.linspace(-4, 4, 801)
    p = 1 / (1 + np.exp(-z))
    likelihood = np.prod([np.where(v == 1, p, 1 - p) for v in y], axis=0)
    total = jax.jit(jax.vmap(lambda a: losses.sigmoid_cross_entropy(jnp.full(4, a), y).sum()))(z)
    np.testing.assert_allclose(total, -np.log(likelihood), rtol=1e-12)
    assert abs(z[np.argmin(total)] - math.log(3)) < 0.01  # the logit of the mean, 3/4

    data = np.array([0.3, 1.9, -0.4])
    means = np.linspace(-2, 2, 401)

    @jax.jit
    @jax.vmap
    def both(m):
        mean = jnp.full(3, m)
        nll = losses.gaussian_negative_log_likelihood(mean, data, 2.5)
        return nll, losses.squared_loss(mean, data)

    nll, half = (np.asarray(v) for v in both(means))
    assert nll.sum(1).argmin() == half.sum(1).argmin()
    assert abs(means[nll.sum(1).argmin()] - data.mean()) < 0.01
    np.testing.assert_allclose(nll - half / 2.5, math.log(2 * math.pi * 2.5) / 2, rtol=1e-10)
    density = np.exp(-((0.3 - means) ** 2) / 5) / math.sqrt(2 * math.pi * 2.5)
    np.testing.assert_allclose(nll[:, 0], -np.log(density), rtol=1e-12)


def test_swapped_cross_entropy_is_not_defined_for_labels():
    # C36: -[a log y + (1 - a) log(1 - y)] is infinite for y in {0, 1}.
    y, a = jnp.array([0.0, 1.0]), jnp.array([0.3, 0.6])
    swapped = -(a * jnp.log(y) + (1 - a) * jnp.log(1 - y))
    assert np.isinf(swapped).all()
    assert np.isfinite(losses.sigmoid_cross_entropy(jnp.log(a / (1 - a)), y)).all()


def _regression(seed=0, rows=80):
    rng = np.random.RandomState(seed)
    x = rng.randn(rows, 50)
    w = np.zeros(50)
    w[:5] = [3, -2, 4, 1.5, -2.5]
    return x, x @ w + 0.1 * rng.randn(rows), w


def test_l2_is_a_gaussian_prior_and_l1_a_laplace_prior(x64):
    # C37, F23: lambda = noise variance / prior variance, and noise variance / Laplace scale.
    x, y, _ = _regression()
    variance, tau2, b = 0.4, 0.9, 0.3
    w = np.random.RandomState(1).randn(50)

    def likelihood(w):
        return losses.gaussian_negative_log_likelihood(x @ w, y, variance).sum()

    def gaussian(w):
        zero = jnp.zeros_like(w)
        return likelihood(w) + losses.gaussian_negative_log_likelihood(w, zero, tau2).sum()

    def laplace(w):
        return likelihood(w) + jnp.sum(jnp.log(2 * b) + jnp.abs(w) / b)

    def objective(penalty, strength):
        return lambda w: (losses.squared_loss(x @ w, y).sum() + strength * penalty(w)) / variance

    for prior, penalised in (
        (gaussian, objective(l2_penalty, variance / tau2)),
        (laplace, objective(l1_penalty, variance / b)),
    ):
        np.testing.assert_allclose(_slope(prior)(w), _slope(penalised)(w), rtol=1e-10)
    ridge = np.linalg.solve(x.T @ x + variance / tau2 * np.eye(50), x.T @ y)
    np.testing.assert_allclose(_slope(gaussian)(ridge), 0, atol=1e-9)  # MAP = ridge


def test_l1_makes_zeros_and_l2_only_shrinks(x64):
    # C38: 50 features, 5 of them true.
    x, y, truth = _regression()
    strength = 8.0
    step = 1 / np.linalg.norm(x, 2) ** 2
    smooth = _slope(lambda w: losses.squared_loss(x @ w, y))

    def proximal(_, w):
        moved = w - step * smooth(w)
        return jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - step * strength, 0)

    lasso = np.asarray(jax.lax.fori_loop(0, 2000, proximal, jnp.zeros(50)))
    ridge = np.linalg.solve(x.T @ x + strength * np.eye(50), x.T @ y)
    plain = np.linalg.lstsq(x, y)[0]
    assert (lasso[5:] == 0).sum() >= 40
    assert (np.abs(lasso[:5] - truth[:5]) < 0.2).all()
    assert (ridge == 0).sum() == 0
    assert (plain == 0).sum() == 0
    assert l2_penalty({"w": ridge}) < l2_penalty({"w": plain})
    slope = np.asarray(smooth(lasso))  # stationary: -slope is a subgradient of the penalty
    active = lasso != 0
    np.testing.assert_allclose(slope[active], -strength * np.sign(lasso[active]), atol=1e-6)
    assert (np.abs(slope[~active]) <= strength + 1e-6).all()
    total = smooth(ridge) + strength * _slope(l2_penalty)(ridge)
    np.testing.assert_allclose(total, 0, atol=1e-9)


def test_penalties_choose_leaves_by_path(strict_promotion):
    params = {
        "a": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([10.0])},
        "b": [{"kernel": jnp.array([3.0], jnp.bfloat16)}],
    }
    seen = []
    assert l2_penalty(params, where=lambda path: bool(seen.append(path))) == 0
    assert seen == ["a/bias", "a/kernel", "b/0/kernel"]

    def weights(path):
        return path.endswith("kernel")

    assert l2_penalty(params) == 57
    assert l2_penalty(params, where=weights) == 7
    assert l1_penalty(params, where=weights) == 6
    slope = jax.jit(jax.grad(lambda p: l2_penalty(p, where=weights)))(params)
    np.testing.assert_array_equal(slope["a"]["kernel"], params["a"]["kernel"])
    np.testing.assert_array_equal(slope["a"]["bias"], 0)
    assert l2_penalty(jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(jax.grad(l1_penalty)(jnp.array([0.0, -2.0])), [0.0, -1.0])
    with pytest.raises(TypeError, match="l1_penalty: parameter 'b/count' must be floating point"):
        l1_penalty({"b": {"count": jnp.array(3)}})


def test_distillation_interpolates_and_keeps_the_size_of_the_gradient(x64):
    z, t, labels = (GIVEN[k][3:] for k in ("logits", "other_logits", "labels"))
    loss = jax.jit(losses.distillation_loss)  # temperature and weight may be traced
    hard = losses.softmax_cross_entropy(z, labels)
    np.testing.assert_allclose(loss(z, t, labels, 4.0, 0.0), hard, rtol=1e-14)
    soft = losses.kl_divergence_with_logits(t, z)
    np.testing.assert_allclose(loss(z, t, labels, 1.0, 1.0), soft, rtol=1e-14)
    np.testing.assert_allclose(loss(z, z, labels, 3.0, 1.0), 0, atol=1e-14)
    # Hinton et al.: for a high temperature the gradient is the difference of the centred logits
    # over the number of classes, so it does not shrink with T.
    high = _slope(lambda a: losses.distillation_loss(a, t, labels, 1e4, 1.0))(z)
    difference = z - z.mean(-1, keepdims=True) - t + t.mean(-1, keepdims=True)
    np.testing.assert_allclose(high, difference / 5, atol=1e-2)


# --- labels, masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "uint32"])
def test_pick_takes_every_integer_dtype_and_more_classes_than_it_holds(dtype):
    values = jnp.arange(600.0).reshape(2, 300)
    np.testing.assert_array_equal(pick(values, jnp.array([5, 100], dtype)), [5.0, 400.0])


def test_labels_out_of_range_give_nan_and_their_gradient_is_zero():
    z = jnp.asarray(GIVEN["logits"][:4], jnp.float32)
    labels = jnp.array([-1, 5, 0, 4])
    value = jax.jit(losses.softmax_cross_entropy)(z, labels)
    np.testing.assert_array_equal(np.isnan(value), [True, True, False, False])
    mask = jnp.array([False, False, True, True])
    slope = _slope(lambda a: losses.masked_mean(losses.softmax_cross_entropy(a, labels), mask))(z)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[:2], 0)
    expected = _slope(lambda a: losses.softmax_cross_entropy(a, labels[2:]))(z[2:]) / 2
    np.testing.assert_allclose(slope[2:], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1, 7], r"check_labels: labels\[2\] is -1, outside \[0, 3\); there are 3 classes"),
        ([[0, 1], [2, 3]], r"check_labels: labels\[1, 1\] is 3, outside \[0, 3\)"),
        (3, r"check_labels: labels\[\] is 3"),
    ],
)
def test_check_labels_names_the_first_offender(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(np.asarray(labels), 3)
    check_labels(np.clip(labels, 0, 2), 3)
    check_labels(np.zeros((0,), np.uint8), 3)
    with pytest.raises(TypeError, match="check_labels: labels must be integers, got float"):
        check_labels(np.zeros(3), 3)


@hypothesis.given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(0, 99))
def test_masked_mean_is_the_mean_of_what_is_left(mask, seed):
    values = np.random.RandomState(seed).randn(8).astype(np.float32)
    mask = np.asarray(mask)
    result = losses.masked_mean(jnp.asarray(np.where(mask, values, np.nan)), jnp.asarray(mask))
    expected = values[mask].mean() if mask.any() else 0.0
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


def test_masked_mean_of_a_padded_batch_has_the_gradient_of_the_short_one(strict_promotion):
    values = jnp.array([1.0, 2.0, 6.0, jnp.nan])
    mask = jnp.array([True, True, True, False])
    value, slope = jax.jit(jax.value_and_grad(losses.masked_mean))(values, mask)
    assert value == 3.0
    np.testing.assert_allclose(slope, [1 / 3, 1 / 3, 1 / 3, 0])
    value, slope = jax.value_and_grad(losses.masked_mean)(values, jnp.zeros(4, bool))
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    assert losses.masked_mean(values[:3], None) == 3.0
    assert losses.masked_mean(jnp.zeros(0), None) == 0.0


def test_masked_mean_counts_exactly_in_sixteen_bits():
    ones = jnp.ones(1001, jnp.bfloat16)
    mean = losses.masked_mean(ones, jnp.ones(1001, bool))
    assert mean.dtype == jnp.bfloat16
    assert mean == 1
    with jax.enable_x64(True):
        assert losses.masked_mean(jnp.ones(3, jnp.float64), None).dtype == jnp.float64


# --- refusals -------------------------------------------------------------------------------------


def test_silent_broadcasting_is_refused_and_reshape_cures_it():
    # C41: (b,) - (b, 1) is (b, b).
    a, b = jnp.arange(4.0), jnp.arange(4.0).reshape(4, 1)
    assert (a - b).shape == (4, 4)
    with pytest.raises(
        ValueError,
        match=r"squared_loss: predictions and targets must have the same shape, "
        r"got \(4,\) and \(4, 1\)",
    ):
        losses.squared_loss(a, b)
    np.testing.assert_array_equal(losses.squared_loss(a, b.reshape(a.shape)), 0)


Z, Y, P = jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32), jnp.full((4, 3), 1 / 3)


@pytest.mark.parametrize(
    "name",
    [
        "squared_loss",
        "sigmoid_cross_entropy",
        "softmax_cross_entropy_with_probabilities",
        "kl_divergence",
        "kl_divergence_with_logits",
        "gaussian_negative_log_likelihood",
    ],
)
def test_losses_of_two_arrays_refuse_other_shapes_and_integers(name):
    extra = (1.0,) if name.startswith("gaussian") else ()
    loss = getattr(losses, name)
    for other in (P[:, :1], P[:1], P[0], P[None]):
        with pytest.raises(ValueError, match=f"{name}: .* and .* must have the same shape"):
            loss(Z, other, *extra)
    with pytest.raises(TypeError, match=f"{name}: .* must be floating point, got int32"):
        loss(Z, jnp.zeros((4, 3), jnp.int32), *extra)
    with pytest.raises(TypeError, match=f"{name}: .* must be floating point, got int32"):
        loss(jnp.zeros((4, 3), jnp.int32), Z, *extra)


@pytest.mark.parametrize(
    "name", ["softmax_cross_entropy", "cross_entropy", "clipped_cross_entropy", "pick"]
)
def test_losses_of_labels_refuse_other_shapes_and_dtypes(name):
    loss = getattr(losses, name)
    for labels in (Y[:, None], Y[:3], Y[0], jnp.zeros((4, 3), jnp.int32)):
        with pytest.raises(ValueError, match=f"{name}: labels must have the shape of .* without"):
            loss(P, labels)
    with pytest.raises(ValueError, match=f"{name}: labels must have the shape of"):
        loss(jnp.array(1.0), Y[0])
    with pytest.raises(TypeError, match=f"{name}: labels must be integers, got float32"):
        loss(P, jnp.zeros(4))
    with pytest.raises(TypeError, match=f"{name}: .* must be floating point, got int32"):
        loss(jnp.zeros((4, 3), jnp.int32), Y)


def test_other_refusals():
    with pytest.raises(ValueError, match="distillation_loss: temperature must be positive, got 0"):
        losses.distillation_loss(Z, Z, Y, 0.0, 0.5)
    with pytest.raises(ValueError, match=r"distillation_loss: weight must be in \[0, 1\], got 2"):
        losses.distillation_loss(Z, Z, Y, 1.0, 2.0)
    with pytest.raises(ValueError, match="distillation_loss: student_logits and teacher_logits"):
        losses.distillation_loss(Z, Z[:3], Y, 1.0, 0.5)
    with pytest.raises(ValueError, match="distillation_loss: labels must have the shape of stud"):
        losses.distillation_loss(Z, Z, Y[:3], 1.0, 0.5)
    with pytest.raises(ValueError, match="mean and variance must have the same shape"):
        losses.gaussian_negative_log_likelihood(Z, Z, jnp.ones(3))
    with pytest.raises(TypeError, match="entropy: probabilities must be floating point"):
        losses.entropy(jnp.array([0, 1]))
    with pytest.raises(TypeError, match="masked_mean: mask must be boolean, got float32"):
        losses.masked_mean(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="masked_mean: values and mask must have the same shape"):
        losses.masked_mean(jnp.zeros(3), jnp.zeros((3, 1), bool))
    with pytest.raises(TypeError, match="masked_mean: values must be floating point"):
        losses.masked_mean(jnp.zeros(3, bool), None)
