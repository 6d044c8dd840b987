"""train.diagnose: what a diagnosis is, and that healthy networks get none."""

import jax
import pytest

from jaxd2l import data, init, models, train
from jaxd2l.ops import losses


@pytest.mark.smoke
def test_a_fresh_mlp_on_digits_is_healthy():
    net, digits = models.mlp(), data.load_digits()
    params, state = init(net, jax.random.key(0), (28, 28, 1))
    found = train.diagnose(net, params, state, digits, losses.softmax_cross_entropy)
    assert found.causes == ()
    assert str(found) == "nothing found"
