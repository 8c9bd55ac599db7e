"""Models that can reject an image: the last of their K + 1 outputs is the rejection.

A clean image that is rejected is not classified correctly, and under attack a rejected image is no success. So an attack must
move the image to another class *and* past the detector (Tramèr, "Detecting adversarial examples is (nearly) as hard as
classifying them", ICML 2022, arXiv 2107.11630, counts both kinds of error this way).
"""

from __future__ import annotations

import torch
from torch import Tensor


def reduced(outputs: Tensor, labels: Tensor) -> Tensor:
    """The problem with K classes that an attack faces: outputs (N, K + 1) and labels (N,) to logits (N, K).

    The label's logit becomes the maximum of itself and the rejection: another class is the largest exactly where it is larger
    than both. A rejection that is as large as the largest class counts as a rejection, so the next larger number is used for it.
    """
    logits, rejection = outputs[:, :-1], outputs[:, -1:]
    own = labels[:, None]
    above = torch.nextafter(rejection.detach(), torch.full_like(rejection, torch.inf))
    # The difference is exact, and a constant to autograd.
    strict = rejection + (above - rejection.detach())
    return logits.scatter(1, own, torch.maximum(logits.gather(1, own), strict))
