"""The script that times recurrences runs, and what it calls ours and plain are equal."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxd2l.ops.recurrent import Weights

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "recurrence.py"


def test_the_table_has_a_row_for_each_pass(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("recurrence", SCRIPT)
    recurrence = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recurrence)
    draw = np.random.RandomState(0)
    weights = Weights(*(draw.randn(*s).astype(np.float32) for s in [(2, 3), (3, 3), (3,)]))
    x = draw.randn(2, 4, 2).astype(np.float32)
    ours, plain = (f("rnn", jnp.asarray(x), weights) for f in (recurrence.ours, recurrence.plain))
    np.testing.assert_allclose(ours, plain, atol=1e-6)
    monkeypatch.setattr("sys.argv", ["recurrence.py", "--quick", "--kinds", "rnn"])
    assert recurrence.main() == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in rows] == [
        ["4,8,6,5", "rnn", name] for name in ("forward", "train")
    ]
    columns = 4 if "torch" in head else 3
    for row in rows:
        figures = [float(value) for value in row.split()[3:]]
        assert len(figures) == columns + (2 if "train" in row else 0)
        np.testing.assert_allclose(figures[columns - 1], figures[1] / figures[0], rtol=0.5)
