"""For property tests of your own networks and functions, whatever library they are written in.

Assertions about any JAX function, which run on shapes or compare with a reference:

- `assert_output_shape(f, input_shape, expected)`
- `assert_receptive_field(f, input_shape, size=..., jump=..., start=...)`
- `assert_gradients_match(f, reference, *args)`

Strategies for hypothesis, valid by construction, simplest first:

- `windows()`: how one layer looks at one axis (`geometry.Window`)
- `input_sizes(windows)`: sizes that a stack of windows fits
- `stacks()`: a stack of windows and a size that it fits
- `networks()`: a network with branches in one to three dimensions, and an input shape

The assertions need JAX alone; the strategies need hypothesis, which is imported when one is made.
"""

from jaxd2l.testing.assertions import assert_output_shape as assert_output_shape
from jaxd2l.testing.assertions import assert_receptive_field as assert_receptive_field
from jaxd2l.testing.gradients import assert_gradients_match as assert_gradients_match
from jaxd2l.testing.networks import networks as networks
from jaxd2l.testing.strategies import input_sizes as input_sizes
from jaxd2l.testing.strategies import stacks as stacks
from jaxd2l.testing.strategies import windows as windows
