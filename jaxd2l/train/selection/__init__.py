"""Choosing among settings and architectures, and making one predictor out of many."""

from jaxd2l.train.selection.architecture import Architecture as Architecture
from jaxd2l.train.selection.architecture import pareto_front as pareto_front
from jaxd2l.train.selection.architecture import search_architectures as search_architectures
from jaxd2l.train.selection.bagging import Bag as Bag
from jaxd2l.train.selection.bagging import bagging as bagging
from jaxd2l.train.selection.bagging import bootstrap_rows as bootstrap_rows
from jaxd2l.train.selection.bayesian import bayesian_search as bayesian_search
from jaxd2l.train.selection.bias_variance import Decomposition as Decomposition
from jaxd2l.train.selection.bias_variance import bias_variance as bias_variance
from jaxd2l.train.selection.bias_variance import decompose as decompose
from jaxd2l.train.selection.boosting import Boosted as Boosted
from jaxd2l.train.selection.boosting import adaboost as adaboost
from jaxd2l.train.selection.boosting import boosted_values as boosted_values
from jaxd2l.train.selection.boosting import boosted_votes as boosted_votes
from jaxd2l.train.selection.boosting import least_squares_boosting as least_squares_boosting
from jaxd2l.train.selection.coarse_to_fine import coarse_to_fine as coarse_to_fine
from jaxd2l.train.selection.committee import average_probabilities as average_probabilities
from jaxd2l.train.selection.committee import average_values as average_values
from jaxd2l.train.selection.committee import predict_members as predict_members
from jaxd2l.train.selection.halving import Halving as Halving
from jaxd2l.train.selection.halving import successive_halving as successive_halving
from jaxd2l.train.selection.scores import Tried as Tried
from jaxd2l.train.selection.settings import LogUniform as LogUniform
from jaxd2l.train.selection.settings import Uniform as Uniform
from jaxd2l.train.selection.settings import grid as grid
from jaxd2l.train.selection.settings import random_search as random_search
