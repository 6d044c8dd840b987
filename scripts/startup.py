"""How long a start takes: imports, and a cold start to the end of the first epoch.

    python scripts/startup.py [--repeats 5]

Every figure is the median of fresh processes. The first epoch is that of `jaxd2l train lenet` on
the bundled digits: it holds the start of Python, all imports, reading the data, compilation, the
epoch itself, its evaluation and its checkpoint.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"

FIRST_EPOCH = """
import sys
from jaxd2l import cli
sys.exit(cli.main(["train", "lenet", "--epochs", "1", "--quiet"]))
"""


def run(code: str, folder: str) -> tuple[float, str]:
    """Seconds that a fresh interpreter takes for `code`, and what it prints."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - began, done.stdout


def measure(repeats: int) -> dict[str, float]:
    """Median seconds by name."""
    found: dict[str, list[float]] = {"import jax": [], "import jaxd2l": [], "first epoch": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):  # in turn, so that a busy moment hits all alike
            for module in ("jax", "jaxd2l"):
                _, printed = run(IMPORT.format(module), folder)
                found[f"import {module}"].append(float(printed))
            found["first epoch"].append(run(FIRST_EPOCH, folder)[0])
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure imports and the first epoch.")
    parser.add_argument("--repeats", type=int, default=5, help="processes (default: 5)")
    times = measure(parser.parse_args().repeats)
    print(f"import jax                           {times['import jax']:6.2f} s")
    print(f"import jaxd2l (jax and all)          {times['import jaxd2l']:6.2f} s")
    print(f"cold start to end of first epoch     {times['first epoch']:6.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
