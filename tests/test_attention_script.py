"""The script that measures attention runs, and compares what it says it does."""

import importlib.util
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "attention.py"


def test_the_same_attention_is_measured_in_every_way(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("attention_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["attention.py", "--quick"])
    assert script.main() == 0
    lines = capsys.readouterr().out.splitlines()
    found = [re.match(r"1,2,192 +(\w+) +(\S+) +(\d+\.\d) ms +(\S+)x", line) for line in lines]
    ways = ["jaxd2l", "plain", "jax.nn"]
    assert [m[1] + " " + m[2] for m in found if m[2] != "torch"] == [
        f"{what} {way}" for what in ("output", "gradients") for way in ways
    ]
    assert all(float(m[4]) == 1 for m in found if m[2] == "jaxd2l")
    x = jnp.asarray(np.random.RandomState(0).normal(size=(3, 1, 6, 2, 4)), jnp.float32)
    outputs = [way(*x) for way in script.WAYS.values()]
    for y in outputs[1:]:
        np.testing.assert_allclose(y, outputs[0], atol=1e-6)
