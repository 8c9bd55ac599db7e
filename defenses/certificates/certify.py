"""Certification of samples: certified accuracy is a lower bound of robust accuracy, as attacks give an upper bound.

Methods run from the cheapest on: interval bounds for all samples, linear bounds (CROWN) for open samples with a chance of
success, and an exact search (a mixed-integer program) if few ReLUs remain open and a short attack fails.
See `gauntlet.defenses.certificates.ibp_crown_bounds` and `gauntlet.defenses.certificates.exact_milp` for the papers.

A certificate holds for the model as it runs, in float32: its margin exceeds all rounding errors of the network, and it holds
for every point that the verifier accepts, at eps and with its slack. Samples that are too close to decide stay open.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.norms import limit, per_image, project, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.certificates.exact_milp import TOLERANCE, decide, start_search
from gauntlet.defenses.certificates.ibp_crown_bounds import (
    Interval,
    Method,
    check_inputs,
    check_labels,
    hidden_bounds,
    margins_below,
)
from gauntlet.defenses.certificates.relu_network import Network, UnsupportedModelError, forward_error
from gauntlet.defenses.certificates.relu_program import fits
from gauntlet.defenses.certificates.relu_reader import compare, network
from gauntlet.defenses.certificates.relu_region import Region, region

__all__ = ["Certificates", "UnsupportedModelError", "certify", "readable"]

SEARCHED_RELUS = 300
"""Largest number of open ReLUs after linear bounds for which a sample is searched.

On cnn.ibp_digits at Linf 0.15 most searches took less than a CPU second, but the hardest took many, so that their result
depends on the time limit on a busy machine. For networks with other training a search may use all its time and stay open.
"""
CROWN_SHARE = {"Linf": 0.57, "L2": 0.3, "L1": 0.3}
"""Largest share of ReLUs left open by intervals for which linear bounds are tried; a sample takes up to half a second.

Chosen on every eighth digit with cnn.trades_digits, cnn.pgd_digits and a network trained by intervals. Under Linf the largest
share of a certified sample was 0.569 (eps 0.1), and the smallest share at 0.15, where no sample was certified, 0.57; other
networks may lose certificates. Under L2, with 40 digits, 0.3 does lose some: on cnn.trades_digits 39 of 40 were certified at
0.1 with shares of about 0.44.
"""
_SAFETY = 10
"""Multiple of `exact_milp.TOLERANCE` that a search must exceed: proven bounds of HiGHS were wrong by up to that tolerance."""
_FEW_RELUS = 60
"""Number of open ReLUs after intervals up to which linear bounds are tried whatever their share, for small networks."""
_STEPS = 20
_BATCH = 256
_COMPARED = 16  # Images of a batch in which model and network are compared, as many as the verifier's.


@dataclass(frozen=True, eq=False)
class Certificates:
    """The certificates of N samples; each sample is certified, broken or open."""

    certified: Tensor
    """bool (N,): no point that the verifier accepts reaches the attacker's goal, and the clean image is classified correctly."""
    witness: Tensor
    """Points that reach the goal, in the images' shape and dtype; the clean image for samples without one."""
    found: Tensor
    """bool (N,): there is a witness, which the verifier still has to accept."""
    method: tuple[str, ...]
    """For each sample: `ibp`, `crown` or `milp` if certified; `clean` (the goal is reached without a change), `attack` or
    `milp` if broken; empty if open."""
    seconds: dict[str, float]
    """Seconds of each stage."""

    @property
    def open(self) -> Tensor:
        """bool (N,): neither certified nor broken."""
        return ~(self.certified | self.found)


def readable(model: nn.Module, images: Tensor) -> Network:
    """The network that `model` computes on images (N, C, H, W) in [0, 1].

    Raises UnsupportedModelError that says why no bound can be computed.
    """
    return network(model, images)


def certify(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    ids: Sequence[str] = (),
    time_limit: float = 10.0,
    net: Network | None = None,
) -> Certificates:
    """Certify samples under `threat` as far as possible.

    `model` maps images (N, C, H, W) in [0, 1], in their dtype and on their device, to logits (N, K), and is in eval mode; it is
    not changed. `labels` (N,). For Linf all stages are used; for L2 and L1, and for targeted threat models, bounds alone. `ids`
    (N,) determine random targets. `time_limit`: seconds for the search of a sample, else it is open. `net`: from `readable`.

    Raises UnsupportedModelError as `readable` does, and where the model differs from the network that was read of it at points of
    the balls; ValueError for bad arguments.
    """
    positive("time_limit", time_limit)
    exact, label = check_inputs(images, labels)
    net = net or readable(model, images)
    check_labels(label, net.widths[-1])
    work = _Work(model, images, exact, label, threat, threat.targets(label, net.widths[-1], ids), net)
    with work.timed("clean"):
        rows = work.clean()
    with work.timed("ibp"):
        rows = work.intervals(rows)
    with work.timed("attack"):
        rows = work.attack(rows)
    with work.timed("crown"):
        rows, hidden = work.linear(rows)
    with work.timed("milp"):
        work.search(rows, hidden, time_limit)
    with work.timed("compare"):
        work.compare()
    return Certificates(work.certified, work.witness, work.found, tuple(work.method), work.seconds)


class _Work:
    """The samples and results of a certification; each stage takes rows and returns the rows for the next stage."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        exact: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        targets: Tensor,
        net: Network,
    ) -> None:
        self.model, self.images, self.exact, self.labels = model, images.detach(), exact, labels
        self.threat, self.targets, self.net = threat, targets, net
        # The points that the verifier accepts, with the rounding of its distance.
        self.ball = region(exact, threat.norm, limit(threat) * (1 + 1e-9))
        self.certified = torch.zeros(len(labels), dtype=torch.bool)
        self.found = torch.zeros(len(labels), dtype=torch.bool)
        self.witness = self.images.clone()
        self.method = [""] * len(labels)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the seconds of a stage."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began

    def clean(self) -> Tensor:
        """Returns the samples that are classified correctly."""
        every = torch.arange(len(self.labels))
        self._meet(every, self.images, "clean")
        return every[self._predict(self.images) == self.labels]

    def intervals(self, rows: Tensor) -> Tensor:
        """Interval bounds; returns open samples for which linear bounds are worth trying."""
        left = [rows[:0]]
        for part in rows.split(_BATCH):
            _, proven, hidden = self._bounds(part, "ibp")
            self._certify(part, proven.all(1), "ibp")
            count = _open_relus(hidden, len(part))
            share = count / max(1, sum(self.net.widths[1:-1]))
            worth = (share <= CROWN_SHARE[self.threat.norm]) | (count <= _FEW_RELUS)
            left.append(part[worth & ~proven.all(1)])
        return torch.cat(left)

    def attack(self, rows: Tensor) -> Tensor:
        """Gradient descent on the model's margin, where it has gradients, with decreasing steps; returns the unbroken samples."""
        if self.threat.target or self.threat.norm == "L1" or not len(rows):
            return rows
        where = rows.to(self.images.device)
        clean, labels = self.images[where], self.labels.to(where.device)[where]
        x, best, least = clean, clean, margin(self._logits(clean), labels)
        for step in range(_STEPS):
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                gradient = input_gradient(margin(self.model(x), labels), x)
            if gradient is None:
                break
            size = 2 * self.threat.eps * (1 - step / _STEPS)
            x = project(x.detach() - size * steepest(gradient, self.threat.norm), clean, self.threat)
            gap = margin(self._logits(x), labels)
            best = torch.where(per_image(gap < least, x), x, best)
            least = torch.minimum(gap, least)
        self._meet(rows, best, "attack")
        return rows[~self.found[rows]]

    def linear(self, rows: Tensor) -> tuple[Tensor, list[Interval]]:
        """Linear bounds; returns open samples that can be searched, with the bounds of their ReLUs."""
        left, kept = [rows[:0]], []
        searchable = self.threat.norm == "Linf" and not self.threat.target and fits(self.net)
        for part in rows.split(_BATCH):
            _, proven, hidden = self._bounds(part, "crown")
            self._certify(part, proven.all(1), "crown")
            few = ~proven.all(1) & (_open_relus(hidden, len(part)) <= SEARCHED_RELUS)
            if searchable and few.any():
                left.append(part[few])
                kept.append([(low[few], high[few]) for low, high in hidden])
        joined = [
            (torch.cat([low for low, _ in layer]), torch.cat([high for _, high in layer]))
            for layer in zip(*kept, strict=True)
        ]
        return torch.cat(left), joined

    def search(self, rows: Tensor, hidden: list[Interval], time_limit: float) -> None:
        """The exact search by integer programs."""
        if not len(rows):
            return
        ball, labels = self.ball[rows], self.labels[rows]
        lower, need = self._margins(ball, hidden, labels, "crown")
        search = start_search(
            lambda x: self.net(x.flatten(1)),
            self.net,
            self.exact[rows],
            labels,
            ball,
            hidden,
            lower,
            need=need,
            tolerance=_SAFETY * TOLERANCE,
        )
        proven, broken, searched = decide(search, lower > need, time_limit)
        self._certify(rows, proven.all(1) & ~broken, "milp")
        for name, chosen in (("attack", broken & ~searched), ("milp", broken & searched)):
            clean = self.images[rows[chosen].to(self.images.device)]
            points = search.point.view(search.shape)[chosen].to(clean)
            self._meet(rows[chosen], project(points, clean, self.threat), name)

    def compare(self) -> None:
        """Compare model and network at the certified images and at points of their balls, in batches as small as the verifier's.

        Raises UnsupportedModelError where they differ: then nothing is proven of the model.
        """
        generator = torch.Generator().manual_seed(0)
        for rows in self.certified.nonzero().squeeze(1).split(_COMPARED):
            clean = self.images[rows.to(self.images.device)]
            compare(self.net, self.model, clean)
            drawn = torch.randn(clean.shape, generator=generator, dtype=torch.float64).to(clean)
            for direction in (torch.ones_like(clean), -torch.ones_like(clean), drawn, drawn.sign()):
                end = project(clean + self.threat.eps * direction, clean, self.threat)
                share = torch.rand(len(clean), generator=generator, dtype=torch.float64).to(clean)
                compare(self.net, self.model, clean + per_image(share, clean) * (end - clean))

    def _bounds(self, rows: Tensor, method: Method) -> tuple[Tensor, Tensor, list[Interval]]:
        """Lower bounds of the margins, whether each is proven or irrelevant, and the bounds of the ReLUs."""
        ball, labels, targets = self.ball[rows], self.labels[rows][:, None], self.targets[rows][:, None]
        hidden = hidden_bounds(self.net, ball, method)
        lower, need = self._margins(ball, hidden, self.labels[rows], method)
        # The goal is any class but the label, or the target alone.
        unwanted = (targets != labels) & (torch.arange(lower.shape[1]) != targets)
        return lower, (lower > need) | unwanted, hidden

    def _margins(self, ball: Region, hidden: list[Interval], labels: Tensor, method: Method) -> tuple[Tensor, Tensor]:
        """Lower bounds of logit[label] - logit[j], and the values that they must exceed in spite of rounding, (N, K)."""
        error = forward_error(self.net, [ball.high, *(high for _, high in hidden)])
        need = (error + error.gather(1, labels[:, None])).scatter(1, labels[:, None], 0)
        return margins_below(self.net, ball, hidden, labels, method), need

    def _certify(self, rows: Tensor, proven: Tensor, method: str) -> None:
        self.certified[rows[proven]] = True
        for i in rows[proven].tolist():
            self.method[i] = method

    def _meet(self, rows: Tensor, points: Tensor, method: str) -> None:
        """Store the points that reach the attacker's goal."""
        prediction, labels, targets = self._predict(points), self.labels[rows], self.targets[rows]
        won = torch.where(targets == labels, prediction != labels, prediction == targets)
        self.found[rows[won]] = True
        where = rows[won].to(points.device)
        self.witness[where] = points[won.to(points.device)]
        for i in rows[won].tolist():
            self.method[i] = method

    def _logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.model(part) for part in images.split(_BATCH)])

    def _predict(self, images: Tensor) -> Tensor:
        return self._logits(images).argmax(1).cpu() if len(images) else torch.zeros(0, dtype=torch.int64)


def _open_relus(hidden: list[Interval], samples: int) -> Tensor:
    """The number of ReLUs with undecided sign for each sample, (N,)."""
    counts = [((low < 0) & (high > 0)).sum(1) for low, high in hidden]
    return torch.stack(counts).sum(0) if counts else torch.zeros(samples, dtype=torch.int64)
