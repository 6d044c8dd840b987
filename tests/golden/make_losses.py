"""Make losses.npz: values and gradients of PyTorch's losses in float64, for test_losses.py.

Run with an interpreter that has torch: python tests/golden/make_losses.py
Only the outputs are stored; the inputs come from a seed, here and in the test.
"""

import pathlib

import numpy as np


def inputs() -> dict[str, np.ndarray]:
    """The inputs of every golden value; the first rows of `logits` are extreme."""
    rng = np.random.RandomState(7)
    logits = rng.randn(8, 5) * 3
    logits[0] = [100, -100, 0, 50, -50]
    logits[1] = [-100, -100, -100, -100, 100]
    logits[2] = 1e4
    probabilities = rng.dirichlet(np.ones(5), 8)
    probabilities[3] = [0, 1, 0, 0, 0]
    return {
        "logits": logits,
        "other_logits": rng.randn(8, 5) * 2,
        "labels": rng.randint(0, 5, 8),
        "probabilities": probabilities,
        "other_probabilities": rng.dirichlet(np.ones(5), 8),
        "binary": rng.randint(0, 2, (8, 5)).astype(np.float64),
        "targets": rng.randn(8, 5),
        "variance": rng.rand(8, 5) + 0.1,
    }


def main() -> None:
    import torch
    import torch.nn.functional as F

    given = {k: torch.from_numpy(v) for k, v in inputs().items()}
    z, t, labels = given["logits"], given["other_logits"], given["labels"]
    p, q = given["probabilities"], given["other_probabilities"]
    targets, variance, binary = given["targets"], given["variance"], given["binary"]
    soft = {"reduction": "none", "log_target": True}

    def distillation(student):
        kl = F.kl_div((student / 3).log_softmax(-1), (t / 3).log_softmax(-1), **soft).sum(-1)
        return 0.7 * 9 * kl + 0.3 * F.cross_entropy(student, labels, reduction="none")

    losses = {
        "squared_loss": (lambda a: F.mse_loss(a, targets, reduction="none") / 2, z),
        "softmax_cross_entropy": (lambda a: F.cross_entropy(a, labels, reduction="none"), z),
        "softmax_cross_entropy_with_probabilities": (
            lambda a: F.cross_entropy(a, p, reduction="none"),
            z,
        ),
        "cross_entropy": (lambda a: F.nll_loss(a.log(), labels, reduction="none"), q),
        "sigmoid_cross_entropy": (
            lambda a: F.binary_cross_entropy_with_logits(a, binary, reduction="none"),
            z,
        ),
        "kl_divergence": (lambda a: F.kl_div(a.log(), p, reduction="none").sum(-1), q),
        "kl_divergence_with_logits": (
            lambda a: F.kl_div(a.log_softmax(-1), t.log_softmax(-1), **soft).sum(-1),
            z,
        ),
        "gaussian_negative_log_likelihood": (
            lambda a: F.gaussian_nll_loss(a, targets, variance, full=True, reduction="none"),
            t,
        ),
        "distillation_loss": (distillation, z),
    }
    out = {}
    for name, (loss, at) in losses.items():
        a = at.clone().requires_grad_()
        value = loss(a)
        value.sum().backward()
        out[name] = value.detach().numpy()
        out[name + ".gradient"] = a.grad.numpy()
    np.savez_compressed(pathlib.Path(__file__).with_name("losses.npz"), **out)


if __name__ == "__main__":
    main()
