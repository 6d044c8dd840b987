"""Choosing among settings and architectures, and making one predictor out of many."""

from jaxd2l.train.selection.bagging import Bag as Bag
from jaxd2l.train.selection.bagging import bagging as bagging
from jaxd2l.train.selection.bagging import bootstrap_rows as bootstrap_rows
from jaxd2l.train.selection.committee import average_probabilities as average_probabilities
from jaxd2l.train.selection.committee import average_values as average_values
from jaxd2l.train.selection.committee import predict_members as predict_members
from jaxd2l.train.selection.settings import LogUniform as LogUniform
from jaxd2l.train.selection.settings import Uniform as Uniform
from jaxd2l.train.selection.settings import grid as grid
from jaxd2l.train.selection.settings import random_search as random_search
