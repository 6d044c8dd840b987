"""What `receptive_field` makes of constants: masks, parameters, indices, random numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxd2l.analysis import receptive_field
from jaxd2l.analysis.known import Known, NotConcrete, constant, literal
from jaxd2l.geometry import ReceptiveField

ABOVE = np.ones((3, 3, 1, 1), bool)  # the mask of a PixelCNN: the rows above, and to the left
ABOVE[1, 1:] = False
ABOVE[2] = False
KERNEL = jnp.ones((3, 3, 1, 1))


def conv(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda: KERNEL * ABOVE,
        lambda: jnp.where(ABOVE, KERNEL, 0),
        lambda: lax.rev((KERNEL * ABOVE[::-1]), (0,)),
        lambda: (KERNEL[:, :, 0] * ABOVE[:, :, 0])[..., None],
        lambda: -(KERNEL * ABOVE).astype(jnp.bfloat16).astype(jnp.float32),
        lambda: jnp.transpose(KERNEL * ABOVE.transpose(1, 0, 2, 3), (1, 0, 2, 3)),
    ],
)
def test_a_constant_mask_takes_taps_away(kernel):
    rows, columns = receptive_field(lambda x: conv(x, kernel()), (1, 9, 9, 1))
    assert (rows.size, rows.start) == (2, -1)
    assert (columns.size, columns.start) == (3, -1)


def test_a_flax_convolution_with_a_mask():
    model = nn.Conv(1, (3, 3), mask=jnp.asarray(ABOVE))
    variables = model.init(jax.random.key(0), jnp.ones((1, 9, 9, 1)))
    rows, _ = receptive_field(lambda x: model.apply(variables, x), (1, 9, 9, 1))
    assert (rows.size, rows.start) == (2, -1)


def test_zero_parameters_are_used_all_the_same():
    """Float arrays and scalars closed over are parameters, whatever they hold."""
    for kernel in (KERNEL * 0, np.zeros((3, 3, 1, 1), np.float32), KERNEL * jnp.float32(0)):
        fields = receptive_field(lambda x, kernel=kernel: conv(x, kernel), (1, 9, 9, 1))
        assert [field.size for field in fields] == [3, 3]
    alpha = jnp.float32(0)
    (field,) = receptive_field(lambda x: (alpha * jnp.eye(6)) @ x, (1, 6, 2))
    assert [field.interval(unit) for unit in range(6)] == [(i, i) for i in range(6)]
    (field,) = receptive_field(lambda x: x - x, (1, 6, 2))
    assert field == ReceptiveField()


def test_a_kernel_that_the_program_makes_zero_reads_nothing():
    fields = receptive_field(lambda x: conv(x, jnp.zeros((3, 3, 1, 1))), (1, 9, 9, 1))
    assert [field.size for field in fields] == [0, 0]


def test_causal_mixing_by_a_masked_matrix():
    weights = jnp.ones((9, 9))
    f = lambda x: jnp.einsum("ij,njc->nic", jnp.tril(weights), x)  # noqa: E731
    (field,) = receptive_field(f, (1, 9, 2))
    assert [field.interval(i) for i in range(9)] == [(0, i) for i in range(9)]


def test_random_numbers_are_no_mask():
    """Dropout does not take pixels away, whatever its key."""
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):

        def f(x, key=key):
            keep = jax.random.bernoulli(key, 0.5, x.shape)
            mixed = jnp.where(keep, x, 0)
            return mixed + jnp.where(jax.random.bernoulli(key, 0.5, (8, 8)), 1.0, 0.0) @ x

        (field,) = receptive_field(f, (1, 8, 2))
        assert field == ReceptiveField.whole(8)


def test_integers_are_looked_into():
    index = jnp.array([5, 1, 3])
    (field,) = receptive_field(lambda x: x[:, index], (1, 8, 2))
    assert [field.interval(i) for i in range(3)] == [(5, 5), (1, 1), (3, 3)]
    (field,) = receptive_field(
        lambda x: lax.cond(index[0] > 4, lambda x: x, lambda x: x[:, ::-1], x), (1, 8, 2)
    )
    assert field == ReceptiveField()


def test_what_numbers_decide_is_not_decided():
    """A branch chosen by a parameter may be either."""
    gate = jnp.float32(1)
    (field,) = receptive_field(
        lambda x: lax.cond(gate > 0, lambda x: x, lambda x: x[:, ::-1], x), (1, 8, 2)
    )
    assert field.interval(0) == (0, 7)
    assert field.interval(3) == (3, 4)


def test_values_come_when_asked_for_and_only_then():
    asked = []

    def compute(*inputs):
        asked.append(inputs)
        return sum(inputs, 1)

    one = Known(compute)
    two = Known(compute, [one])
    three = Known(compute, [one, two])
    assert not asked
    assert three.value() == 4
    assert three.array().item() == 4
    assert asked == [(), (1,), (1, 2)]


def test_long_chains_of_values_do_not_recurse():
    known = literal(0)
    for _ in range(20_000):
        known = Known(lambda x: x + 1, [known])
    assert known.value() == 20_000


def test_what_cannot_be_computed_says_so():
    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(NotConcrete):
        Known(fail).value()
    with pytest.raises(NotConcrete):
        constant(jax.random.key(0)).array()

    @jax.jit
    def outer(x):
        with pytest.raises(NotConcrete):
            constant(x).value()
        return x

    outer(1.0)
