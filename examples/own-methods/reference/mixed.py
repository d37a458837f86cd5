"""What PyTorch says the loss of `mixed` is: writes mixed.safetensors beside this file.

    pip install torch safetensors && python mixed.py

Inputs are float32. Results are computed from them in float64, and are named with `.f64`.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

ALPHA = 0.3
generator = torch.Generator().manual_seed(0)
clean, robust = (4 * torch.randn(6, 10, generator=generator) for _ in range(2))
labels = torch.randint(10, (6,), generator=generator)

z, a = (logits.double().requires_grad_() for logits in (clean, robust))
loss = (ALPHA * cross_entropy(z, labels, reduction="none")
        + (1 - ALPHA) * cross_entropy(a, labels, reduction="none"))
grad_clean, grad_robust = torch.autograd.grad(loss.mean(), (z, a))

case = {"kind": "mixed", "hyper": {"alpha": ALPHA}, "torch": torch.__version__}
tensors = {
    "clean_logits": clean, "robust_logits": robust, "labels": labels,
    "loss.f64": loss.detach(), "grad_clean.f64": grad_clean, "grad_robust.f64": grad_robust,
}
save_file(tensors, pathlib.Path(__file__).with_suffix(".safetensors"), metadata={"case": json.dumps(case)})
