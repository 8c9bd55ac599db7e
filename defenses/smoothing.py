"""Randomized smoothing: Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.validators import number, positive, whole_number
from gauntlet.defenses.certificates.smoothing_certificate import certify_counts
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.randomness import ESTIMATION, EXPECTATION, SELECTION, child_keys, draws_for

_TOGETHER = 256
"""Noisy copies per pass. A pass has copies of a single image, so that its votes do not depend on its batch."""


class SmoothedModel(nn.Module):
    """The most frequent prediction for noisy copies of the image, or abstention: PREDICT, section 3.2.2.

    Outputs (N, K + 1): the votes of `n` copies with noise of standard deviation `sigma`, not clipped, and last the number of
    votes that the winner needs, minus 1/2. The last output is the largest exactly if the winner does not lead the second class
    by the two-sided binomial test at level `alpha`; then the smoothed model abstains.
    """

    needed: Tensor

    def __init__(self, model: nn.Module, *, sigma: float, n: int, n0: int, alpha: float, attack_draws: int) -> None:
        """`model`: images to logits (N, K). See `build` for the settings."""
        super().__init__()
        self.model = model
        self.sigma = sigma
        self.n = n
        self.n0 = n0
        self.alpha = alpha
        self.attack_draws = attack_draws
        # Indexed by the votes of the first two classes together; a larger value means that no majority suffices.
        together = torch.arange(n + 1)
        votes = torch.from_numpy(stats.binom.isf(alpha / 2, together.numpy(), 0.5)) + 1
        self.register_buffer("needed", votes, persistent=False)
        # New modules are in training mode; this module takes the mode of the wrapped model.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Votes, and the votes needed, (N, K + 1), for images (N, C, H, W)."""
        votes = self._votes(images, self.n, ESTIMATION)
        together = votes.topk(2, dim=1).values.sum(1)
        outputs = torch.cat([votes, self.needed[together][:, None] - 0.5], dim=1)
        return outputs.to(torch.float64 if images.dtype == torch.float64 else torch.float32)

    def certify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """CERTIFY, section 3.2.2: the predicted class, or -1 for abstention, int64 (N,), and the L2 radius, float64 (N,).

        With probability 1 − alpha for each image, a predicted class is that of the smoothed model everywhere within the radius.
        `n0` copies choose the class, `n` others estimate its share.
        """
        selection, estimation = self._votes(images, self.n0, SELECTION), self._votes(images, self.n, ESTIMATION)
        return certify_counts(selection, estimation, sigma=self.sigma, alpha=self.alpha)

    def attack_view(self) -> nn.Module:
        """A differentiable view, see `SoftSmoothedModel`."""
        return SoftSmoothedModel(self)

    def _votes(self, images: Tensor, count: int, tag: int) -> Tensor:
        keys = child_keys(draws_for(images), count, tag)
        with torch.no_grad():
            if not len(images):
                return torch.zeros_like(self.model(images), dtype=torch.int64)
            return torch.stack([self._count(image, own) for image, own in zip(images, keys, strict=True)])

    def _count(self, image: Tensor, keys: Tensor) -> Tensor:
        votes = torch.zeros((), dtype=torch.int64, device=image.device)
        for some in keys.split(_TOGETHER):
            noise = Draws.start(some).normal(image.shape, dtype=image.dtype)
            logits = self.model(image + self.sigma * noise)
            votes = votes + functional.one_hot(logits.argmax(1), logits.shape[1]).sum(0)
        return votes

    def extra_repr(self) -> str:
        """The settings."""
        return f"sigma={self.sigma:g}, n={self.n}, n0={self.n0}, alpha={self.alpha:g}"


class SoftSmoothedModel(nn.Module):
    """The view of a smoothed model for gradient attacks: the logarithm of the mean softmax over a few draws.

    Salman et al., "Provably robust deep learning via adversarially trained smoothed classifiers", NeurIPS 2019, section 2.2. The
    last output is the logarithm of the share of votes that the winner needs, in the normal approximation of the test. It is
    constant in the gradient, which would otherwise raise third classes so that fewer votes are needed: then the standard network
    keeps 82 % accuracy on 50 digits under 20 steps of PGD, with the constant 40 %.
    """

    def __init__(self, smoothed: SmoothedModel) -> None:
        """Shares the smoothed model's parts."""
        super().__init__()
        self.smoothed = smoothed
        self.training = smoothed.training

    def forward(self, images: Tensor) -> Tensor:
        """Logarithms of the shares, and of the share needed, (N, K + 1), for images (N, C, H, W)."""
        of = self.smoothed
        draws = draws_for(images)
        parts = []
        for keys in child_keys(draws, of.attack_draws, EXPECTATION).unbind(1):
            noise = Draws.start(keys).normal(images.shape[1:], dtype=images.dtype)
            parts.append(of.model(images + of.sigma * noise).log_softmax(1))
        shares = torch.logsumexp(torch.stack(parts), 0) - math.log(len(parts))
        together = shares.detach().topk(2, dim=1).values.exp().sum(1)
        needed = together / 2 + stats.norm.isf(of.alpha / 2) * (together / of.n).sqrt() / 2
        return torch.cat([shares, needed.log()[:, None]], dim=1)


def build(
    sigma: float = 0.25, n: int = 100, n0: int = 100, alpha: float = 0.001, attack_draws: int = 16
) -> Callable[[nn.Module], SmoothedModel]:
    """`sigma`: standard deviation of the noise, in units of the [0, 1] pixel range; `alpha`: probability of an error.

    `n` copies vote in the prediction and estimate the share of the certificate, `n0` others choose its class; `attack_draws`
    copies are used by the view for gradient attacks. The paper uses 100,000 copies; with 100 the largest radius is 1.5 sigma.
    """
    positive("sigma", sigma)
    number("alpha", alpha, above=0, below=1)
    for name, value in (("n", n), ("n0", n0), ("attack_draws", attack_draws)):
        whole_number(name, value, 1, 10_000_000)
    return lambda model: SmoothedModel(
        model, sigma=float(sigma), n=n, n0=n0, alpha=float(alpha), attack_draws=attack_draws
    )


ENTRY = DefenseEntry(
    DefenseCard(
        name="smoothing",
        summary="majority vote over noisy copies, with abstention and a certified L2 radius",
        source="Cohen et al. 2019, arXiv 1902.02918; attacked as in Salman et al. 2019, arXiv 1906.04584",
        differentiable=False,
        randomised=True,
        kind="model",
        rejects=True,
        certificates=("L2",),
        samples=100,
    ),
    build,
)
