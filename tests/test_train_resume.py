"""Stopping and going on: Ctrl-C, SIGKILL and damaged files end in the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxd2l import checkpoint, data, models, train
from jaxd2l.layers import BatchNorm, Dense, Dropout, Serial
from jaxd2l.ops import losses

ROOT = Path(__file__).resolve().parent.parent
NET = Serial([Dense("a", 8), BatchNorm("bn"), Dropout("drop", 0.5), Dense("b", 3)])


@pytest.fixture(scope="module")
def few():
    random = np.random.RandomState(0)
    x = random.randn(22, 4).astype(np.float32)
    return data.Dataset(x, (x[:, 0] > 0).astype(np.int32) + (x[:, 1] > 0))


def run(few, folder, **changes):
    settings = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(0.05),
        "epochs": 3,
        "batch_size": 8,
        "test": few,
        "folder": folder,
        "save_every": 2,
        "keep_last": 100,
    }
    return train.fit(NET, few, **{**settings, **changes})


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [{**json.loads(line), "seconds": 0} for line in text.splitlines()]


def arrays(folder):
    flat = checkpoint.load_flat(checkpoint.latest(folder))
    return {name: array.tobytes() for name, array in flat.items()}


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """A run never stopped: steps 2, 3, 4, 6, 8 and 9 are saved."""
    folder = tmp_path_factory.mktemp("whole")
    run(few, folder)
    return folder


@pytest.mark.smoke
def test_resuming_from_any_checkpoint_gives_the_same_bits(few, whole, tmp_path):
    """Dropout, statistics, Adam, a padded last batch; from the middle of an epoch too."""
    assert checkpoint.steps(whole) == [2, 3, 4, 6, 8, 9]
    for step in (2, 3, 8):
        folder = tmp_path / str(step)
        folder.mkdir()
        (folder / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text())
        source = checkpoint.step_path(whole, step)
        checkpoint.step_path(folder, step).write_bytes(source.read_bytes())
        result = run(few, folder, resume=True)
        assert arrays(folder) == arrays(whole)
        assert lines(folder) == lines(whole)
        assert [{**r, "seconds": 0} for r in result.history] == lines(whole)


def test_saving_more_often_changes_nothing(few, whole, tmp_path):
    run(few, tmp_path, save_every=None)
    assert checkpoint.steps(tmp_path) == [3, 6, 9]
    assert arrays(tmp_path) == arrays(whole)


def test_more_epochs_go_on_from_the_end(few, whole, tmp_path):
    run(few, tmp_path, epochs=1)
    result = run(few, tmp_path, epochs=3, resume=True)
    assert len(result.history) == 3
    assert arrays(tmp_path) == arrays(whole)


def test_a_finished_run_is_given_back(few, whole, tmp_path):
    run(few, tmp_path)
    before = checkpoint.latest(tmp_path).read_bytes()
    result = run(few, tmp_path, resume=True)
    assert not result.interrupted
    assert [{**r, "seconds": 0} for r in result.history] == lines(whole)
    assert checkpoint.latest(tmp_path).read_bytes() == before
    assert int(result.train_state.step) == 9


def test_fewer_epochs_than_done_leave_the_run_as_it_is(few, tmp_path):
    run(few, tmp_path, epochs=2)
    assert len(run(few, tmp_path, epochs=1, resume=True).history) == 2
    assert checkpoint.steps(tmp_path)[-1] == 6


def test_resume_without_a_run_starts_one(few, whole, tmp_path):
    run(few, tmp_path / "new" / "deep", resume=True)
    assert arrays(tmp_path / "new" / "deep") == arrays(whole)


def test_a_damaged_checkpoint_is_skipped(few, whole, tmp_path):
    run(few, tmp_path, epochs=2)
    newest = checkpoint.latest(tmp_path)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=newest.name):
        run(few, tmp_path, resume=True)
    assert arrays(tmp_path) == arrays(whole)
    assert lines(tmp_path) == lines(whole)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(few, tmp_path):
    run(few, tmp_path, epochs=1, keep_last=1)
    checkpoint.latest(tmp_path).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="every checkpoint is damaged"):
        run(few, tmp_path, resume=True)


def test_a_folder_that_holds_a_run_is_refused(few, whole):
    before = arrays(whole)
    with pytest.raises(ValueError, match=r"already holds a run \(up to step_00000009") as e:
        run(few, whole)
    assert "resume=True" in str(e.value)
    assert arrays(whole) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 7}, "over other data or batches"),
        ({"seed": 1}, "over other data or batches"),
        ({"optimizer": optax.sgd(0.1)}, r"not in the target: 'opt_state"),
        ({"optimizer": optax.sgd(0.1, momentum=0.9)}, r"does not fit the target"),
    ],
)
def test_resume_refuses_another_run(few, whole, changes, message):
    before = arrays(whole)
    with pytest.raises(ValueError, match=message):
        run(few, whole, resume=True, epochs=9, **changes)
    assert arrays(whole) == before
    assert len(lines(whole)) == 3


def test_resume_refuses_what_only_looks_the_same(few, whole):
    """The same shapes, but other values or another activation."""
    before = arrays(whole)
    shifted = data.Dataset(few.inputs + 1, few.targets, few.classes)
    with pytest.raises(ValueError, match="over other data or batches"):
        run(shifted, whole, resume=True, epochs=9)
    twin = Serial([Dense("a", 8), BatchNorm("bn"), Dropout("drop", 0.25), Dense("b", 3)])
    with pytest.raises(ValueError, match=r"of another network, .*rate=0.5.*this one trains .*0.25"):
        train.fit(
            twin,
            few,
            loss=losses.softmax_cross_entropy,
            optimizer=optax.adam(0.05),
            epochs=9,
            batch_size=8,
            folder=whole,
            resume=True,
        )
    assert arrays(whole) == before


def test_resume_refuses_other_data_and_another_network(few, whole):
    with pytest.raises(ValueError, match=r"'examples': 22.*'examples': 21"):
        run(few.take(range(21)), whole, resume=True)
    with pytest.raises(ValueError, match="does not fit the target"):
        train.fit(
            models.softmax_regression(3),
            few,
            loss=losses.softmax_cross_entropy,
            optimizer=optax.adam(0.05),
            epochs=4,
            batch_size=8,
            folder=whole,
            resume=True,
        )


def test_only_the_last_checkpoints_are_kept(few, tmp_path):
    run(few, tmp_path, keep_last=2)
    assert checkpoint.steps(tmp_path) == [8, 9]


def test_figures_of_a_run_killed_before_its_checkpoint_go(few, whole, tmp_path):
    """The line of an epoch is written just before its checkpoint; a kill between leaves it."""
    run(few, tmp_path, epochs=2)
    checkpoint.step_path(tmp_path, 6).unlink()
    assert len(lines(tmp_path)) == 2
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "st')
    run(few, tmp_path, resume=True)
    assert lines(tmp_path) == lines(whole)
    assert arrays(tmp_path) == arrays(whole)


def test_a_checkpoint_holds_the_network_and_what_it_was_told(few, whole):
    net, params, _state, meta = train.load(whole)
    assert net == NET
    checksum = meta["loader"].pop("checksum")
    assert isinstance(checksum, int)
    assert meta["loader"] == {"seed": 0, "batch_size": 8, "examples": 22}
    assert meta["position"] == {"epoch": 3, "step": 0}
    assert checkpoint.read_metadata(checkpoint.step_path(whole, 8))["position"] == {
        "epoch": 2,
        "step": 2,
    }
    assert jax.tree.structure(params).num_leaves == 6


# Whole processes

COMMAND = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from jaxd2l.cli import main; sys.exit(main(sys.argv[1:]))"
)
TRAIN = ("train", "softmax_regression", "--size", "8,8", "--quiet", "--save-every", "3")


def environment():
    kept = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    return {**kept, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def launch():
    """Start the command in a process of its own; none is left when the test ends."""
    started = []

    def start(folder, epochs, *more):
        arguments = [*TRAIN, "--epochs", str(epochs), "--out", str(folder), *more]
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def wait_for(process, folder, step):
    """Until the run has a checkpoint of that step or a later one."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if checkpoint.steps(folder)[-1:] >= [step]:
            return
        if process.poll() is not None:
            pytest.fail(f"ended before step {step}: {process.communicate()}")
        time.sleep(0.01)
    pytest.fail(f"no checkpoint of step {step}")


def test_ctrl_c_saves_and_resume_ends_in_the_same_bits(launch, tmp_path):
    epochs = 60
    process = launch(tmp_path / "a", epochs)
    wait_for(process, tmp_path / "a", 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.startswith("stopped at step ")
    assert f"continue with: jaxd2l train softmax_regression --out {tmp_path / 'a'} --resume" in out
    assert not err
    stopped = checkpoint.steps(tmp_path / "a")[-1]
    assert f"stopped at step {stopped:,};" in out
    assert 3 <= stopped < 23 * epochs
    finish(launch(tmp_path / "a", epochs, "--resume"))
    finish(launch(tmp_path / "b", epochs))
    assert arrays(tmp_path / "a") == arrays(tmp_path / "b")
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def kill_often(launch, tmp_path, epochs, kills, seed):
    """Kill a run `kills` times, each time after a random number of further checkpoints."""
    random = np.random.RandomState(seed)
    folder = tmp_path / "killed"
    process = launch(folder, epochs)
    step = 0
    for _ in range(kills):
        step += int(random.randint(1, 23 * epochs // (kills + 1)))
        wait_for(process, folder, step)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        step = checkpoint.steps(folder)[-1]
        process = launch(folder, epochs, "--resume")
    finish(process)
    finish(launch(tmp_path / "whole", epochs))
    assert arrays(folder) == arrays(tmp_path / "whole")
    assert lines(folder) == lines(tmp_path / "whole")
    assert [line["epoch"] for line in lines(folder)] == list(range(1, epochs + 1))
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not left


def test_a_killed_run_ends_in_the_same_bits(launch, tmp_path):
    kill_often(launch, tmp_path, epochs=20, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_many_times_ends_in_the_same_bits(launch, tmp_path, seed):
    kill_often(launch, tmp_path, epochs=60, kills=8, seed=seed)
