"""Two ways to the same number: the network as a record, and the jaxpr of its `apply`."""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings

import jaxd2l
from jaxd2l import testing
from jaxd2l.analysis import receptive_field


def placeholders(net, shape):
    """Parameters and statistics that cost nothing."""
    drawn = jax.eval_shape(lambda key: jaxd2l.init(net, key, shape), jax.random.key(0))
    return jax.tree.map(lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), drawn)


@pytest.mark.smoke
@settings(max_examples=40)
@given(testing.networks())
def test_the_jaxpr_of_a_network_says_what_its_records_say(case):
    net, shape = case
    params, state = placeholders(net, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fields = receptive_field(lambda x: jaxd2l.apply(net, params, state, x)[0], (1, *shape))
    row = jaxd2l.summarize(net, shape).rows[-1]
    if row.receptive_field is None:
        assert [field.jump for field in fields] == [0] * len(fields)
        assert [field.size for field in fields] == list(shape[:-1])
        return
    assert tuple(field.size for field in fields) == row.receptive_field
    assert tuple(field.jump for field in fields) == row.jump
    assert tuple(field.start for field in fields) == row.start
