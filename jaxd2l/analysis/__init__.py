"""What can be said of a network, or of any JAX function, before it runs."""

from jaxd2l.analysis.effective import EffectiveReceptiveField as EffectiveReceptiveField
from jaxd2l.analysis.effective import effective_receptive_field as effective_receptive_field
from jaxd2l.analysis.flops import FlopCount as FlopCount
from jaxd2l.analysis.flops import Uncounted as Uncounted
from jaxd2l.analysis.flops import count_flops as count_flops
from jaxd2l.analysis.measure import Row as Row
from jaxd2l.analysis.receptive import receptive_field as receptive_field
from jaxd2l.analysis.summary import Summary as Summary
from jaxd2l.analysis.summary import summarize as summarize
