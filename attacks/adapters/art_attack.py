"""The base class of the attacks of the Adversarial Robustness Toolbox: the wrapped model, and the batch as numpy arrays."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_library import LibraryAttack, count_classes, library
from gauntlet.attacks.views.guard import LogitsModel

_PACKAGE = "adversarial-robustness-toolbox"


@dataclass(frozen=True, kw_only=True)
class ArtAttack(LibraryAttack):
    """Wraps the model for ART and converts the batch to numpy and back; subclasses build the attack."""

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Run the library's attack on the whole batch at once (some of ART's defaults are batches of 1)."""
        if images.device.type not in ("cpu", "cuda"):
            raise ValueError(f"ART runs on cpu and cuda, not on {images.device}: move model and images there")
        classes = count_classes(model, images, least=2, attack=type(self).__name__)
        here = torch.cuda.device(images.device) if images.is_cuda else nullcontext()
        with here:
            estimator = library("art.estimators.classification", _PACKAGE).PyTorchClassifier(
                model=model,
                loss=nn.CrossEntropyLoss(),
                input_shape=tuple(images.shape[1:]),
                nb_classes=classes,
                clip_values=(0.0, 1.0),
                channels_first=True,
                device_type="gpu" if images.is_cuda else "cpu",
            )
            onehot = nn.functional.one_hot(labels, classes).to(torch.float32)
            points = self.generate(estimator, images.cpu().numpy(), onehot.cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32)).to(images.device)

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """Adversarial examples, float array of x's shape; `y` is one-hot (N, K)."""
        raise NotImplementedError

    @property
    def order(self) -> float:
        """The threat model's norm in ART's notation."""
        return np.inf if self.threat.norm == "Linf" else 2


def evasion() -> Any:
    """The library's module of attacks. Raises ImportError that names the package to install."""
    return library("art.attacks.evasion", _PACKAGE)


def deepfool(estimator: Any, steps: int, overshoot: float, gradients: int, batch: int) -> Any:
    """The library's DeepFool over the `gradients` most likely classes."""
    return evasion().DeepFool(
        estimator, max_iter=steps, epsilon=overshoot, nb_grads=gradients, batch_size=batch, verbose=False
    )
