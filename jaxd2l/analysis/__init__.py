"""What can be said of a network, or of any JAX function, before it runs."""

from jaxd2l.analysis.summary import Row as Row
from jaxd2l.analysis.summary import Summary as Summary
from jaxd2l.analysis.summary import summarize as summarize
