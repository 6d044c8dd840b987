"""What is wrong with a network that does not train, in plain words."""

from jaxd2l.train.diagnosis.examine import diagnose as diagnose
from jaxd2l.train.diagnosis.findings import Diagnosis as Diagnosis
from jaxd2l.train.diagnosis.findings import Finding as Finding
