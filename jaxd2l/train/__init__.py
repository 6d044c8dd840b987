"""Training: one pure step, a loop around it, and a whole run as a pure function."""

from jaxd2l.train.diagnosis import Diagnosis as Diagnosis
from jaxd2l.train.diagnosis import Finding as Finding
from jaxd2l.train.diagnosis import diagnose as diagnose
from jaxd2l.train.files import Diverged as Diverged
from jaxd2l.train.finetune import Transfer as Transfer
from jaxd2l.train.finetune import by_path as by_path
from jaxd2l.train.finetune import fix_statistics as fix_statistics
from jaxd2l.train.finetune import freeze as freeze
from jaxd2l.train.finetune import transfer as transfer
from jaxd2l.train.fit import Result as Result
from jaxd2l.train.fit import evaluate as evaluate
from jaxd2l.train.fit import fit as fit
from jaxd2l.train.run import make_run as make_run
from jaxd2l.train.step import Model as Model
from jaxd2l.train.step import TrainState as TrainState
from jaxd2l.train.step import default_metrics as default_metrics
from jaxd2l.train.step import make_evaluate as make_evaluate
from jaxd2l.train.step import make_step as make_step
from jaxd2l.train.step import make_update as make_update
from jaxd2l.train.step import model_of as model_of
from jaxd2l.train.step import start as start
from jaxd2l.train.trained import Trained as Trained
from jaxd2l.train.trained import load as load
