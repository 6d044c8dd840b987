"""The networks of the book, smaller than the published ones."""

from jaxd2l.models.d2l.alexnet import alexnet as alexnet
from jaxd2l.models.d2l.densenet import densenet as densenet
from jaxd2l.models.d2l.googlenet import googlenet as googlenet
from jaxd2l.models.d2l.nin import nin as nin
from jaxd2l.models.d2l.resnet import resnet18 as resnet18
from jaxd2l.models.d2l.vgg import vgg as vgg
