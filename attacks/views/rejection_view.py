"""Models that can reject an image: the last of their K + 1 outputs is the rejection.

A clean image that is rejected is not classified correctly, and under attack a rejected image is no success. So an attack must
move the image to another class *and* past the detector (Tramèr, "Detecting adversarial examples is (nearly) as hard as
classifying them", ICML 2022, arXiv 2107.11630, counts both kinds of error this way).
"""

from __future__ import annotations

import torch
from torch import Tensor


def strict(outputs: Tensor) -> Tensor:
    """Outputs (N, K + 1) with the rejection raised to the next larger number, so that a tie with a class is a rejection."""
    rejection = outputs[:, -1:]
    above = torch.nextafter(rejection.detach(), torch.full_like(rejection, torch.inf))
    # The difference is exact, and a constant to autograd; −∞ stays.
    raised = torch.where(rejection.detach().isfinite(), rejection + (above - rejection.detach()), rejection)
    return torch.cat([outputs[:, :-1], raised], dim=1)


def reduced(outputs: Tensor, labels: Tensor) -> Tensor:
    """The problem with K classes that an attack faces: outputs (N, K + 1) and labels (N,) to logits (N, K).

    The label's logit becomes the maximum of itself and the rejection: another class is the largest exactly where it is larger
    than both. A rejection that is as large as the largest class counts as a rejection (`strict`).
    """
    raised = strict(outputs)
    logits, rejection = raised[:, :-1], raised[:, -1:]
    own = labels[:, None]
    return logits.scatter(1, own, torch.maximum(logits.gather(1, own), rejection))
