"""Pictures, by matplotlib (the extra `plot`); imported only when one is drawn."""

from jaxd2l.plot.curves import learning_curve as learning_curve
from jaxd2l.plot.fields import effective_field as effective_field
from jaxd2l.plot.fields import growth as growth
from jaxd2l.plot.fields import receptive_field as receptive_field
from jaxd2l.plot.heat_maps import attention as attention
from jaxd2l.plot.images import augmentations as augmentations
from jaxd2l.plot.images import feature_maps as feature_maps
from jaxd2l.plot.images import image_grid as image_grid
from jaxd2l.plot.images import kernels as kernels
from jaxd2l.plot.sweeps import learning_bands as learning_bands
from jaxd2l.plot.sweeps import sweep_heat_map as sweep_heat_map
from jaxd2l.plot.text import frequencies as frequencies
from jaxd2l.plot.trajectories import trajectories as trajectories
