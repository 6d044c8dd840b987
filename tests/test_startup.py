"""The script that measures the start runs, and what it measures makes sense."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "startup.py"


def test_the_start_is_measured(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("startup", SCRIPT)
    startup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(startup)
    monkeypatch.setattr("sys.argv", ["startup.py", "--repeats", "1"])
    assert startup.main() == 0
    lines = capsys.readouterr().out.splitlines()
    seconds = [float(line.split()[-2]) for line in lines]
    assert len(seconds) == 3
    assert 0 < seconds[0] < seconds[2]
    assert 0 < seconds[1] < seconds[2]
