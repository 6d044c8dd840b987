"""Pure functions of arrays, one topic a module; they know nothing of layers."""

from jaxd2l.ops import activations as activations
from jaxd2l.ops import adjust as adjust
from jaxd2l.ops import attention as attention
from jaxd2l.ops import augment as augment
from jaxd2l.ops import color as color
from jaxd2l.ops import conv as conv
from jaxd2l.ops import conv_forms as conv_forms
from jaxd2l.ops import conv_matrix as conv_matrix
from jaxd2l.ops import decoding as decoding
from jaxd2l.ops import dropout as dropout
from jaxd2l.ops import initializers as initializers
from jaxd2l.ops import labels as labels
from jaxd2l.ops import lengths as lengths
from jaxd2l.ops import linear as linear
from jaxd2l.ops import losses as losses
from jaxd2l.ops import metrics as metrics
from jaxd2l.ops import normalization as normalization
from jaxd2l.ops import penalties as penalties
from jaxd2l.ops import pool as pool
from jaxd2l.ops import positions as positions
from jaxd2l.ops import randomness as randomness
from jaxd2l.ops import recurrent as recurrent
from jaxd2l.ops import softmax as softmax
from jaxd2l.ops import time_pooling as time_pooling
from jaxd2l.ops import vector_norms as vector_norms
