"""train.diagnose on networks with each fault and on healthy ones, of experiments/diagnosis.py."""

import importlib.util
import re
from pathlib import Path

import pytest

from jaxd2l.train.diagnosis.examine import CHECKS

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "diagnosis.py"
spec = importlib.util.spec_from_file_location("experiments_diagnosis", SCRIPT)
experiment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(experiment)

EVERY = experiment.healthy()
SMALL = [
    *experiment.image_faults("mlp", EVERY["mlp"]),
    *experiment.unit_faults(EVERY["mlp"]),
    *experiment.number_faults(EVERY["linear"], EVERY["logistic"]),
]
LARGE = [
    *experiment.image_faults("lenet", EVERY["lenet"]),
    *experiment.image_faults("resnet", EVERY["resnet"]),
    *experiment.text_faults("lstm", EVERY["lstm"]),
    *experiment.text_faults("gpt", EVERY["gpt"]),
]
TOGETHER = {"mlp: after 5 steps of sgd(100)": ("weights_too_large", "dead_units")}


#: Found in the same way as another one, but compiled anew.
ALIKE = (
    *(
        "mlp: relu",
        "mlp: sigmoid",
        "mlp: tanh",
        "linear: sigmoid",
        "linear: tanh",
        "tanh: biases of 10",
    ),
    *("sigmoid, 20 layers", "mlp: after 5 steps of sgd(100)", "logistic: 97% zeros"),
)


def is_late(fault):
    return fault.cause.startswith("learning_rate") or fault.name in ALIKE


def check(fault, seed):
    expected = TOGETHER.get(fault.name, (fault.cause,))
    found = fault.diagnose(seed)
    assert found.causes == expected, str(found)


@pytest.mark.parametrize("fault", [f for f in SMALL if not is_late(f)], ids=lambda f: f.name)
def test_a_fault_is_found_and_no_other(fault):
    check(fault, 0)


FEW_RATES = ("mlp: sgd(10)", "mlp: adam(1e-07)")


@pytest.mark.parametrize("name", FEW_RATES)
def test_rates_are_judged(name):
    (fault,) = (f for f in SMALL if f.name == name)
    check(fault, 0)


@pytest.mark.slow
def test_faults_that_are_alike_and_those_of_other_networks():
    """One network each is compiled once: another last activation or rate would be another one."""
    chosen = ("lenet: sgd(10)", "gpt: softmax")
    same = [f for f in LARGE if not is_late(f) and f.cause != "last_activation"]
    for fault in [*same, *(f for f in [*SMALL, *LARGE] if f.name in (*ALIKE, *chosen))]:
        check(fault, 0)


def test_every_check_has_a_fault_that_it_finds():
    source = "".join(
        path.read_text() for path in (SCRIPT, SCRIPT.parent.parent / "tests" / "test_diagnose.py")
    )
    names = {check.__name__ for check, _ in CHECKS}
    assert len(names) == len(CHECKS) == 20
    assert {name for name in names if not re.search(rf'"{name}"', source)} == set()


def test_healthy_networks_are_left_alone():
    found = list(experiment.false_alarms(EVERY["mlp"], 0, (0, 5, 50)))
    assert found == [()] * 6


@pytest.mark.slow
def test_no_healthy_network_is_accused():
    for name in ("mlp dropout", "lenet sigmoid", "lstm"):
        for seed in (1, 2):
            assert set(experiment.false_alarms(EVERY[name], seed, (0, 5, 100))) == {()}, name


def test_the_experiment_prints_its_table(capsys):
    experiment.main(["--quick", "--seeds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fault", "put", "into", "found", "alone", "of", "1"]
    assert lines[-1] == "false alarms: 0 of 8 diagnoses of 1 healthy networks"
