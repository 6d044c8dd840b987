"""The script that measures the analysis runs, and agrees on the operations."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "geometry.py"


def test_networks_are_measured(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("geometry_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script.jax, "clear_caches", lambda: None)  # other tests want them
    monkeypatch.setattr("sys.argv", ["geometry.py", "--repeats", "1", "lenet", "mlp"])
    assert script.main() == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["network", "summarize", "field", "operations"]
    assert [line.split()[0] for line in lines] == ["lenet", "mlp"]
    for line in lines:
        assert all(0 < float(t) < 10_000 for t in line.split()[1::2])
