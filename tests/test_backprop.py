"""Back-propagation by hand, in NumPy, as the oracle for jax.grad of our operations."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxd2l.ops.activations import ACTIVATIONS
from jaxd2l.ops.linear import dense
from jaxd2l.ops.softmax import log_softmax

SLOPES = {  # derivative from the pre-activation z and the output h
    "sigmoid": lambda z, h: h * (1 - h),
    "tanh": lambda z, h: 1 - h**2,
    "relu": lambda z, h: (z > 0).astype(z.dtype),
    "leaky_relu": lambda z, h: np.where(z > 0, 1.0, 0.01),
    "softplus": lambda z, h: 1 / (1 + np.exp(-z)),
    "identity": lambda z, h: np.ones_like(z),
}
FORWARD = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "identity": lambda z: z,
}


def softmax_by_hand(a):
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def backprop_by_hand(weights, x, y, name):
    """Mean cross-entropy of an MLP and its gradients: the four equations of back-propagation."""
    outputs, sums, h = [x], [], x
    for i, (w, b) in enumerate(weights):
        z = h @ w + b
        h = z if i == len(weights) - 1 else FORWARD[name](z)
        sums.append(z)
        outputs.append(h)
    p = softmax_by_hand(h)
    loss = -(y * np.log(p)).sum(1).mean()

    delta = (p - y) / len(x)  # of the loss by the last pre-activation
    gradients = []
    for i in reversed(range(len(weights))):
        gradients.append((outputs[i].T @ delta, delta.sum(0)))
        if i:
            delta = (delta @ weights[i][0].T) * SLOPES[name](sums[i - 1], outputs[i])
    return loss, gradients[::-1]


def loss_of_ours(weights, x, y, name):
    for w, b in weights[:-1]:
        x = ACTIVATIONS[name](dense(x, w, b))
    return -jnp.mean(jnp.sum(y * log_softmax(dense(x, *weights[-1])), axis=1))


def problem(widths, seed=0, examples=7):
    draw = np.random.RandomState(seed)
    weights = [(draw.randn(i, o), draw.randn(o)) for i, o in pairwise(widths)]
    x, labels = draw.randn(examples, widths[0]), draw.randint(0, widths[-1], examples)
    return weights, x, np.eye(widths[-1])[labels]


def compare(weights, x, y, name):
    want_loss, want = backprop_by_hand(weights, x, y, name)
    ours = jax.tree.map(jnp.asarray, (weights, x, y))
    loss, got = jax.jit(jax.value_and_grad(loss_of_ours), static_argnums=3)(*ours, name)
    assert loss.dtype == jnp.float64
    np.testing.assert_allclose(loss, want_loss, rtol=1e-12)
    for layer, (ours_wb, hand_wb) in enumerate(zip(got, want, strict=True)):
        for a, b in zip(ours_wb, hand_wb, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=f"layer {layer}")


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_an_mlp_with_two_hidden_layers(name, x64):
    compare(*problem((4, 6, 5, 3)), name)


def test_softmax_regression(x64):
    """No hidden layer: the gradient is x^T (p - y) / n."""
    weights, x, y = problem((5, 3), seed=1)
    compare(weights, x, y, "identity")
    p = softmax_by_hand(x @ weights[0][0] + weights[0][1])
    g = jax.grad(loss_of_ours)(*jax.tree.map(jnp.asarray, (weights, x, y)), "identity")
    np.testing.assert_allclose(g[0][0], x.T @ (p - y) / len(x), rtol=1e-9, atol=1e-13)


def test_forward_mode_agrees(x64):
    weights, x, y = jax.tree.map(jnp.asarray, problem((3, 4, 2), seed=2))
    loss = jax.jit(lambda w: loss_of_ours(w, x, y, "tanh"))
    check_grads(loss, (weights,), order=1, modes=("fwd", "rev"))


def test_logistic_regression_and_the_squared_loss_of_a_sigmoid(x64):
    """Cross-entropy gives s(z) - y; half the squared error (a - y) a (1 - a), which vanishes."""
    z, y = jnp.linspace(-8, 8, 33), jnp.asarray(np.arange(33) % 2, jnp.float64)
    a = ACTIVATIONS["sigmoid"](z)

    def cross_entropy(z):
        return jnp.sum(ACTIVATIONS["softplus"](z) - y * z)

    def squared(z):
        return jnp.sum(0.5 * (ACTIVATIONS["sigmoid"](z) - y) ** 2)

    np.testing.assert_allclose(jax.grad(cross_entropy)(z), a - y, atol=1e-12)
    np.testing.assert_allclose(jax.grad(squared)(z), (a - y) * a * (1 - a), atol=1e-12)
    confident_and_wrong = jnp.asarray(np.abs(a - y) > 0.999)
    assert (jnp.abs(jax.grad(cross_entropy)(z))[confident_and_wrong] > 0.999).all()
    assert (jnp.abs(jax.grad(squared)(z))[confident_and_wrong] < 1e-3).all()


# ---- The examples of the notes -----------------------------------------------------------------


def test_the_gradient_of_2_x_dot_x_is_4_x():
    x = jnp.arange(4.0)
    np.testing.assert_array_equal(jax.grad(lambda x: 2 * jnp.dot(x, x))(x), [0, 4, 8, 12])


def test_backward_of_a_vector_is_the_gradient_of_its_sum():
    """MXNet sums a non-scalar before it differentiates; here that is a vjp with ones."""
    x = jnp.linspace(-2.0, 2.0, 5)
    f = lambda x: ACTIVATIONS["tanh"](x) * x  # noqa: E731
    y, pull = jax.vjp(f, x)
    np.testing.assert_allclose(
        pull(jnp.ones_like(y))[0], jax.grad(lambda x: f(x).sum())(x), rtol=1e-6
    )
    with pytest.raises(TypeError, match="scalar-output"):
        jax.grad(f)(x)


def test_detach_makes_a_constant():
    """z = detach(x * x) * x has derivative x^2, not 3 x^2."""
    x = jnp.arange(4.0)
    detached = jax.grad(lambda x: jnp.sum(jax.lax.stop_gradient(x * x) * x))(x)
    np.testing.assert_array_equal(detached, x * x)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(x * x * x))(x), 3 * x * x)
