"""Attention: every query's weighted mean of the values, the weights a softmax of scores."""

from jaxd2l.ops.attention.additive import additive_attention as additive_attention
from jaxd2l.ops.attention.additive import additive_weights as additive_weights
from jaxd2l.ops.attention.dot_product import attention_weights as attention_weights
from jaxd2l.ops.attention.dot_product import dot_product_attention as dot_product_attention
from jaxd2l.ops.attention.dot_product import masked_softmax as masked_softmax
from jaxd2l.ops.attention.kernel_regression import nadaraya_watson as nadaraya_watson
from jaxd2l.ops.attention.kernel_regression import (
    nadaraya_watson_weights as nadaraya_watson_weights,
)
from jaxd2l.ops.attention.multi_head import Cache as Cache
from jaxd2l.ops.attention.multi_head import HeadWeights as HeadWeights
from jaxd2l.ops.attention.multi_head import empty_cache as empty_cache
from jaxd2l.ops.attention.multi_head import multi_head_attention as multi_head_attention
