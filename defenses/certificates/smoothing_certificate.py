"""The certificate of randomized smoothing in L2, from votes under Gaussian noise.

Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing" (ICML 2019, arXiv 1902.02918): the
procedure CERTIFY of section 3.2.2. The smoothed classifier predicts the class that the base classifier predicts most often
under noise of standard deviation `sigma`. A first set of votes selects the class, a second, independent set bounds its
probability from below; with probability at least 1 - alpha for each sample the smoothed prediction is the same everywhere
within the radius. The noise must not be clipped to the box.
"""

from __future__ import annotations

import torch
from scipy.stats import beta, norm
from torch import Tensor

from gauntlet.attacks.ops.validators import number, positive, whole_number

ABSTAIN = -1
"""The prediction for abstention."""


def certify_counts(selection: Tensor, estimation: Tensor, *, sigma: float, alpha: float) -> tuple[Tensor, Tensor]:
    """CERTIFY for N samples: predictions, int64 (N,), and radii, float64 (N,); `ABSTAIN` and 0 for abstention.

    `selection` and `estimation` (N, K): counts of the K classes under n0 and n independent draws of noise; rows sum to n0 and n.
    `sigma`, `alpha`: as for `certified_radius`. Ties go to the first class.

    Raises ValueError for counts that are not whole, are negative, differ in shape, or have different sums of rows.
    """
    draws = [_draws(name, counts) for name, counts in (("selection", selection), ("estimation", estimation))]
    if selection.shape != estimation.shape:
        raise ValueError(
            f"selection has shape {tuple(selection.shape)} and estimation {tuple(estimation.shape)}: give both as (N, K)"
        )
    top = selection.argmax(1)
    radius = certified_radius(estimation.gather(1, top[:, None]).squeeze(1), draws[1], sigma, alpha)
    return torch.where(radius > 0, top.cpu(), ABSTAIN), radius


def certified_radius(count_top: Tensor, n: int, sigma: float, alpha: float) -> Tensor:
    """sigma · Φ⁻¹(p) with p the lower bound of the selected class's probability; float64 (N,) on the CPU, 0 where p <= 1/2.

    `count_top` (N,): the number of `n` draws with the class that other draws had selected. `sigma`: standard deviation of the
    noise, in units of pixels. `alpha`: the error probability per sample, between 0 and 1. A radius of 0 is an abstention.
    Raises ValueError for bad arguments.
    """
    positive("sigma", sigma)
    lower = probability_bound(count_top, n, alpha)
    return sigma * torch.from_numpy(norm.ppf(lower.clamp_min(0.5).numpy()))


def probability_bound(count: Tensor, n: int, alpha: float) -> Tensor:
    """Lower bounds of a probability after `count` (N,) successes in `n` draws, at confidence 1 - alpha, float64 (N,).

    One-sided, by Clopper and Pearson (Biometrika 1934): with that probability, at least `count` successes have the chance
    alpha. Raises ValueError for bad arguments.
    """
    whole_number("n", n, 1)
    number("alpha", alpha, above=0, below=1)
    _whole("count", count)
    count = count.detach().cpu()
    bad = (count < 0) | (count > n)
    if count.ndim != 1 or bad.any():
        what = f"has shape {tuple(count.shape)}" if count.ndim != 1 else f"contains {int(count[bad][0])}"
        raise ValueError(f"count {what}: give successes out of n={n} draws, from 0 to n, as (N,)")
    successes = count.to(torch.float64).numpy()
    # The quantile is undefined for 0 successes.
    bounds = beta.ppf(alpha, successes.clip(min=1), n - successes.clip(min=1) + 1)
    return torch.where(count > 0, torch.from_numpy(bounds), 0.0)


def _draws(name: str, counts: Tensor) -> int:
    _whole(name, counts)
    if counts.ndim != 2 or (counts < 0).any():
        raise ValueError(f"{name} must hold counts of at least 0, as (N, K); its shape is {tuple(counts.shape)}")
    totals = counts.sum(1)
    if len(totals) and (totals != totals[0]).any():
        raise ValueError(
            f"{name} has rows of {int(totals.min())} to {int(totals.max())} draws: give the same number in every row"
        )
    return int(totals[0]) if len(totals) else 1


def _whole(name: str, counts: Tensor) -> None:
    if counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {counts.dtype}: give whole numbers, as int64")
