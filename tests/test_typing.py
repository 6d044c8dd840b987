"""A user's own file, checked by mypy against the types of the library."""

import subprocess
import sys

import pytest

USER = """
import jax
import jax.numpy as jnp
import jaxd2l
from jaxd2l import layers, models, records
from jaxd2l.ops import initializers


@records.record
class Scale(layers.Layer):
    name: str
    power: float = 1.0

    def parameters(self, input_shape: tuple[int, ...]) -> dict[str, layers.Parameter]:
        return {"scale": layers.Parameter(input_shape[-1:], initializers.Constant(1.0))}

    def apply(
        self, params: dict[str, jax.Array], state: dict[str, jax.Array], x: jax.Array,
        context: layers.Context,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return x * params["scale"] ** self.power, state


def loss(net: layers.Layer, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    y, _ = jaxd2l.apply(net, params, {}, x, train=True, key=jax.random.key(0))
    return jnp.mean(y)


net = layers.Serial(
    [
        Scale("scale", power=2.0),
        layers.Conv("conv", 4, 3, stride=(1, 2), padding="same", bias=False),
        layers.Dense("dense", 4, kernel_init=initializers.HeNormal()),
        layers.Parallel([layers.Identity(), layers.Activation("relu")], "add"),
        models.lenet(),
    ],
    name="net",
)
params, state = jaxd2l.init(net, jax.random.key(0), (28, 28, 1))
shape: tuple[int, ...] = jaxd2l.output_shape(net, (28, 28, 1))
count: int = jaxd2l.summarize(net, shape).parameters
again: layers.Layer = records.load(records.dump(net))
"""


@pytest.mark.slow
def test_a_users_file_passes_and_a_wrong_argument_does_not(tmp_path):
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(USER)
    bad.write_text("from jaxd2l import layers\nlayers.Dense('a', features='three')\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    for path, code in ((good, 0), (bad, 1)):
        done = subprocess.run(
            [*command, *cache, "--follow-imports=silent", str(path)], capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
