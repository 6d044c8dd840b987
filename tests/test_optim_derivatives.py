"""Jacobians, Hessians and critical points: against closed forms, and the claims on saddles."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxd2l import optim


@pytest.mark.smoke
def test_jacobians_of_trees_are_one_matrix(strict_promotion):
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])}

    def wide(p):  # one number from three: by rows
        return p["a"][0] * p["a"][1] * p["b"]

    def tall(p):  # four from three: by columns
        return {"u": p["a"] ** 2, "v": jnp.stack([p["b"][0, 0] * p["a"][0], p["a"].sum()])}

    np.testing.assert_allclose(jax.jit(lambda x: optim.jacobian(wide, x))(x), [[6, 3, 2]])
    np.testing.assert_allclose(
        jax.jit(lambda x: optim.jacobian(tall, x))(x), [[2, 0, 0], [0, 4, 0], [3, 0, 1], [1, 1, 0]]
    )


@pytest.mark.smoke
def test_hessians_and_their_products(x64):
    random = np.random.RandomState(0)
    a, v = random.randn(6, 3), random.randn(3)
    x = random.randn(3)

    def f(x):
        return jnp.log(jnp.exp(a @ x).sum())

    p = np.exp(a @ x) / np.exp(a @ x).sum()
    wanted = a.T @ (np.diag(p) - np.outer(p, p)) @ a
    found, product = jax.jit(lambda x: (optim.hessian(f, x), optim.hvp(f, x, v)))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert (found == found.T).all()
    np.testing.assert_allclose(product, wanted @ v, rtol=1e-10)
    tree = jax.jit(optim.hvp, static_argnums=0)(
        lambda t: t["u"] * t["w"][0] ** 2,
        {"u": 2.0, "w": jnp.ones(1)},
        {"u": 1.0, "w": jnp.ones(1)},
    )
    assert float(tree["u"]) == 2  # 2 u w w' is differentiated along (1, 1)
    assert tree["w"].tolist() == [6]


def test_condition_numbers(strict_promotion):
    kappa = jax.jit(optim.condition_number)
    assert float(kappa(jnp.diag(jnp.array([0.2, 4.0])))) == pytest.approx(20)
    assert float(kappa(-2 * jnp.eye(2))) == 1
    assert float(kappa(jnp.zeros((2, 2)))) == math.inf
    a = np.random.RandomState(0).randn(5, 3).astype(np.float32)
    assert float(kappa(a)) == pytest.approx(np.linalg.cond(a), rel=1e-5)
    with pytest.raises(ValueError, match=r"matrix must be \(m, n\), got \(3,\)"):
        optim.condition_number(jnp.ones(3))
    with pytest.raises(TypeError, match="condition_number: matrix must be floating point"):
        optim.condition_number(jnp.eye(3, dtype=jnp.int32))


def test_critical_points_are_told_apart(strict_promotion):
    functions = {
        "minimum": lambda x: jnp.sum(x**2),
        "maximum": lambda x: -jnp.sum(x**2),
        "saddle": lambda x: x[0] ** 2 + x[1] * x[2],
        "degenerate": lambda x: x[0] ** 2 + x[1] ** 2 + x[2] ** 4,
        "not critical": lambda x: jnp.sum(x),
    }
    others = [lambda x: x[0] ** 2 - x[1] ** 2, lambda x: -(x[0] ** 2)]

    def classify(number, x):
        return optim.classify_critical_point(
            lambda v: jax.lax.switch(number, [*functions.values(), *others], v), x
        )

    program = jax.jit(classify)
    for number, kind in enumerate(functions):
        found = program(number, jnp.zeros(3))
        assert found.kind == kind
    counts = [(int(f.negative), int(f.zero)) for f in (program(i, jnp.zeros(3)) for i in range(5))]
    assert counts == [(0, 0), (3, 0), (1, 0), (0, 1), (0, 3)]
    mixed = program(5, jnp.zeros(3))
    assert mixed.kind == "saddle"  # both signs: no zero could make it an extremum
    assert int(mixed.zero) == 1
    assert program(6, jnp.zeros(3)).kind == "degenerate"  # zeros may go either way
    mapped = jax.vmap(program, (None, 0))(2, jnp.eye(3))
    assert mapped.critical.tolist() == [False, False, False]
    with pytest.raises(ValueError, match=r"classify_critical_point: f must give one number"):
        optim.classify_critical_point(lambda x: x, jnp.zeros(2))


# Claims


def wilson(hits, trials, z=4.0):
    """Wilson's interval of a share, here with z = 4: wrong once in 16 000."""
    p, d = hits / trials, 1 + z**2 / trials
    middle = (p + z**2 / (2 * trials)) / d
    half = z / d * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    return middle - half, middle + half


def test_c61_random_symmetric_matrices_are_hardly_ever_positive_definite():
    trials = 200_000
    closed = {1: 1 / 2, 2: (2 - math.sqrt(2)) / 4, 3: (math.pi - 2 * math.sqrt(2)) / (4 * math.pi)}
    notes = {1: 0.503, 2: 0.153, 3: 0.025, 4: 0.002, 5: 0.0001}  # of fewer draws
    shares = []
    for n in range(1, 6):
        a = np.random.RandomState(n).randn(trials, n, n)
        a += a.transpose(0, 2, 1)
        hits = np.ones(trials, bool)
        for k in range(1, n + 1):  # Sylvester: all leading minors above 0
            hits &= np.linalg.det(a[:, :k, :k]) > 0
        low, high = wilson(hits.sum(), trials)
        shares.append((low, high))
        if n in closed:
            assert low < closed[n] < high
        assert abs(hits.mean() - notes[n]) < 0.008
    for above, below in itertools.pairwise(shares):
        assert below[1] < above[0] / 3  # each dimension more: at least three times as rare


@pytest.mark.slow
def test_c61_flat_points_of_a_small_net_are_saddles(x64):
    """Where the gradient vanishes near random weights of a 2-2-1 net of tanh, by least squares on
    the gradient (which is drawn to points of any index), for 20 seeds and more."""
    random = np.random.RandomState(0)
    x = random.randn(30, 2)
    y = np.sin(2 * x[:, 0]) * x[:, 1]

    def loss(w):
        out = jnp.tanh(x @ w[:4].reshape(2, 2) + w[4:6]) @ w[6:8] + w[8]
        return jnp.mean((out - y) ** 2) + 1e-3 * w @ w  # the decay leaves no flat directions

    @jax.jit
    @jax.vmap
    def flat(key):
        start = jax.random.normal(key, (9,))
        found = optim.gauss_newton(jax.grad(loss), start, damping=1e-2, tol=1e-10, max_steps=200)
        return optim.classify_critical_point(loss, found.x, tol=1e-7), loss(found.x)

    points, losses = flat(jax.random.split(jax.random.key(0), 120))
    critical = np.asarray(points.critical & (points.zero == 0))
    index = np.asarray(points.negative)[critical]
    assert index.size >= 20
    assert (index < 9).all()  # no maximum
    share = wilson((index > 0).sum(), index.size, z=1.96)
    assert share[0] > 0.5  # most are saddles
    higher = np.asarray(losses)[critical]
    assert np.corrcoef(index, higher)[0, 1] > 0  # and the lower the loss, the fewer ways down
