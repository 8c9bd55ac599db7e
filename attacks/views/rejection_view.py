"""Models that may reject an image: the last of their K + 1 outputs means that nothing is said about it.

The rule by which rejection counts: a clean image that is rejected is not classified correctly; under attack a rejected image
is no success. So an attack has to move the image to another class *and* past the detector (Tramèr, "Detecting adversarial
examples is (nearly) as hard as classifying them", ICML 2022, arXiv 2107.11630, counts both kinds of error this way).
"""

from __future__ import annotations

import torch
from torch import Tensor


def reduced(outputs: Tensor, labels: Tensor) -> Tensor:
    """The problem of K classes that an attack faces: outputs (N, K + 1) and labels (N,) to logits (N, K).

    The label's logit becomes the larger one of its own and of the rejection: another class is the largest exactly where it
    is larger than both. A rejection that is as large as the largest class counts as a rejection: it is taken as the number
    above it.
    """
    logits, rejection = outputs[:, :-1], outputs[:, -1:]
    own = labels[:, None]
    above = torch.nextafter(rejection.detach(), torch.full_like(rejection, torch.inf))
    # The difference is exact, and a constant to autograd.
    strict = rejection + (above - rejection.detach())
    return logits.scatter(1, own, torch.maximum(logits.gather(1, own), strict))
