"""Image augmentation: records that are functions (key, image) -> image of one image.

There is one way to write an augmentation: a frozen record with checked fields that is called with a
key and one image (h, w, c). It is pure, all shapes are static, and the same key gives the same
image, so it goes through `jit`, `vmap` and `pmap`, and is stored with the network that uses it.

    step = Compose([RandomFlip(), RandomShift(2), RandomBrightness(0.2)])
    image = step(key, image)                        # one image
    images = jax.vmap(step)(keys, images)           # a batch, one key for each image
    images = augment(key, images, step)             # keys from one key and the index of the example
    layers.Serial([layers.Augment("augment", step), ...])    # in training only, as dropout is

Values stay in [0, 1] where the input is; augment before standardising, because the adjustments of
colour clip to [0, 1]. Conversion to other color spaces draws nothing: it is the layer
`layers.ColorSpaces`, put after. What is random over a batch and needs the labels is `mixup`.

A step of your own is a subclass of `Augmentation` with `@records.record`.

Source: D2L 14.1; definitions as torchvision's where it has them (`ColorJitter` draws the order of
its four steps anew for each image; here the order is the one written).
"""

from jaxd2l.ops.augment.core import Augmentation as Augmentation
from jaxd2l.ops.augment.core import Compose as Compose
from jaxd2l.ops.augment.core import augment as augment
from jaxd2l.ops.augment.geometric import RandomCrop as RandomCrop
from jaxd2l.ops.augment.geometric import RandomFlip as RandomFlip
from jaxd2l.ops.augment.geometric import RandomResizedCrop as RandomResizedCrop
from jaxd2l.ops.augment.geometric import RandomShift as RandomShift
from jaxd2l.ops.augment.geometric import resize_box as resize_box
from jaxd2l.ops.augment.mixing import CutOut as CutOut
from jaxd2l.ops.augment.mixing import mixup as mixup
from jaxd2l.ops.augment.photometric import RandomBrightness as RandomBrightness
from jaxd2l.ops.augment.photometric import RandomContrast as RandomContrast
from jaxd2l.ops.augment.photometric import RandomGray as RandomGray
from jaxd2l.ops.augment.photometric import RandomHue as RandomHue
from jaxd2l.ops.augment.photometric import RandomSaturation as RandomSaturation
