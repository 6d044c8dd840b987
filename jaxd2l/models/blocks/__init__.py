"""Blocks: the functions of which the networks are made, each a network of its own."""

from jaxd2l.models.blocks.basic import RELU as RELU
from jaxd2l.models.blocks.basic import conv as conv
from jaxd2l.models.blocks.basic import conv_norm as conv_norm
from jaxd2l.models.blocks.basic import norm as norm
from jaxd2l.models.blocks.residual import bottleneck_block as bottleneck_block
from jaxd2l.models.blocks.residual import preactivation_block as preactivation_block
from jaxd2l.models.blocks.residual import projection as projection
from jaxd2l.models.blocks.residual import residual_block as residual_block
