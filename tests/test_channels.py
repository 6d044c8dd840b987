"""Channel shuffle: its definition, what it refuses, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.ops.channels import channel_shuffle


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (6, 3), (6, 6), (12, 4)])
def test_the_shuffle_is_its_definition(channels, groups):
    """Reshape to (groups, m), transpose, flatten: channel j*groups + g comes from g*m + j."""
    x = np.random.RandomState(0).randn(2, 3, channels).astype(np.float32)
    want, m = np.empty_like(x), channels // groups
    for g in range(groups):
        for j in range(m):
            want[..., j * groups + g] = x[..., g * m + j]
    y = channel_shuffle(jnp.asarray(x), groups)
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(channel_shuffle(y, m), x)
    layer = layers.ChannelShuffle(groups)
    np.testing.assert_array_equal(jaxd2l.apply(layer, {}, {}, jnp.asarray(x))[0], want)


def test_what_the_shuffle_refuses():
    for shape in ((2, 5), ()):
        with pytest.raises(ValueError, match="groups=2 must divide the channels, the last axis"):
            channel_shuffle(jnp.zeros(shape), 2)
        with pytest.raises(ValueError, match="groups=2 must divide the channels, the last axis"):
            jaxd2l.output_shape(layers.ChannelShuffle(2), shape)
    with pytest.raises(ValueError, match="ChannelShuffle: groups"):
        layers.ChannelShuffle(0)


def test_a_shuffle_of_features_sees_more_than_its_own_position():
    """Of pixels it sees one; of (features,) the positions are what it moves."""
    assert layers.ChannelShuffle(2).windows((3, 3, 4)) == ()
    assert layers.ChannelShuffle(2).windows((4,)) is None


@pytest.mark.parametrize("shuffled", [True, False])
def test_the_shuffle_lets_every_output_group_see_every_input_group(shuffled):
    """Two convolutions in 3 groups: without it a group only ever sees itself."""
    between = [layers.ChannelShuffle(3)] if shuffled else []
    convs = [layers.Conv(name, 9, 1, groups=3) for name in "ab"]
    net = layers.Serial([convs[0], *between, convs[1]])
    rng = np.random.RandomState(0)
    kernels = {
        name: {"kernel": rng.uniform(1, 2, (1, 1, 3, 9)), "bias": np.zeros(9)} for name in "ab"
    }
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), kernels)
    mixed = jax.jacobian(lambda x: jaxd2l.apply(net, params, {}, x[None, None, None])[0].ravel())
    jacobian = jax.jit(mixed)
    seen = np.asarray(jacobian(jnp.ones(9))).reshape(3, 3, 3, 3) != 0
    # output group, unit, input group, unit
    want = np.ones((3, 3)) if shuffled else np.eye(3)
    np.testing.assert_array_equal(seen.any((1, 3)), want)
    if shuffled:
        assert seen.all()  # of each input group even every channel, through the first convolution
