"""LeNet on real digits: test accuracy over five seeds.

    python experiments/lenet.py
        the digits of scikit-learn at 28x28, a fifth held out: median at least 97 %
    python experiments/lenet.py --data MNIST_DIR --hold-out 2000
        a folder with MNIST's 10,000 test images, the last 2,000 held out: median at least 98 %
    python experiments/lenet.py --recipe book --set batch_norm=True
        the book's form with batch normalisation; leave the option out to compare

Takes the options of `jaxd2l train lenet`; `--seeds` chooses how many runs. D2L 7.6 and 8.5.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

from jaxd2l import cli


def accuracy(options: list[str], seed: int) -> tuple[float, float]:
    """Test accuracy after the last epoch, and the seconds that the run took."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run = ["train", "lenet", "--quiet", "--seed", str(seed), "--out", folder]
            status = cli.main([*run, *options])
        if status:
            raise SystemExit(status)
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["test_accuracy"], time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    arguments, options = parser.parse_known_args()
    found = []
    for seed in range(arguments.seeds):
        value, seconds = accuracy(options, seed)
        found.append(value)
        print(f"seed {seed}: test accuracy {100 * value:.2f} %  ({seconds:.1f} s)", flush=True)
    print(f"median of {len(found)} seeds: {100 * statistics.median(found):.2f} %")


if __name__ == "__main__":
    main()
