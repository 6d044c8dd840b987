"""Strict settings for every test: four simulated devices, deterministic hypothesis, Agg."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest

collect_ignore = ["golden"]  # scripts that need torch; their results are stored beside them

hypothesis.settings.register_profile(
    "jaxd2l", deadline=None, derandomize=True, max_examples=30, database=None
)
hypothesis.settings.load_profile("jaxd2l")


@pytest.fixture
def x64():
    """Double precision for the length of one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_promotion():
    """No implicit dtype promotion and no rank promotion."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
