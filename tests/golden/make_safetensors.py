"""Write reference.safetensors with the safetensors package (0.8.0), and let it read one of ours.

Run from the project root: python tests/golden/make_safetensors.py
"""

from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import load_file

from jaxd2l.checkpoint import save

DTYPES = {
    "bool": np.bool_,
    "uint8": np.uint8,
    "int8": np.int8,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e8m0fnu": ml_dtypes.float8_e8m0fnu,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "int16": np.int16,
    "uint16": np.uint16,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int32": np.int32,
    "uint32": np.uint32,
    "float32": np.float32,
    "complex64": np.complex64,
    "float64": np.float64,
    "int64": np.int64,
    "uint64": np.uint64,
}


def arrays():
    """One array of each dtype, a 0-d one and an empty one; the test makes the same."""
    rng = np.random.RandomState(0)
    made = {f"each/{n}": rng.randint(0, 2, (2, 3)).astype(d) for n, d in DTYPES.items()}
    made["scalar"] = np.float32(rng.randn())[None].reshape(())
    made["empty"] = np.zeros((0, 3), np.float32)
    made["gewicht/ü"] = rng.randn(3).astype(np.float32)
    return made


def reference(made, metadata):
    specs = {
        name: safetensors.TensorSpec(
            dtype=a.dtype.name, shape=list(a.shape), data_ptr=a.ctypes.data, data_len=a.nbytes
        )
        for name, a in made.items()
    }
    return safetensors.serialize(specs, metadata)


if __name__ == "__main__":
    here = Path(__file__).parent
    made = arrays()
    (here / "reference.safetensors").write_bytes(reference(made, {"note": 'text "ü"\n'}))
    numpy_knows = {n: a for n, a in made.items() if "float8" not in n}
    tree = {"a": numpy_knows, "transposed": np.arange(6.0).reshape(2, 3).T}
    path = save(here / "ours.tmp.safetensors", tree, meta={"step": 1})
    theirs = load_file(path)
    path.unlink()
    assert (theirs.pop("transposed") == tree["transposed"]).all()
    assert theirs.keys() == {f"a/{n}" for n in numpy_knows}
    assert all((theirs[f"a/{n}"] == a).all() for n, a in numpy_knows.items())
    print("wrote reference.safetensors; the package reads ours")
