"""Data in host memory (NumPy): readers, bundled and synthetic data, splits and batches."""

from jaxd2l.data.batches import Batch as Batch
from jaxd2l.data.batches import Batches as Batches
from jaxd2l.data.dataset import Dataset as Dataset
from jaxd2l.data.dataset import Parts as Parts
from jaxd2l.data.digits import load_digits as load_digits
from jaxd2l.data.splits import Fold as Fold
from jaxd2l.data.splits import hold_out_last as hold_out_last
from jaxd2l.data.splits import k_folds as k_folds
from jaxd2l.data.splits import split as split
from jaxd2l.data.splits import train_test_split as train_test_split
