"""Certificates: proofs of robustness, and adversarial examples that the exact search finds on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import positive
from gauntlet.attacks.registry.card import AttackCard
from gauntlet.attacks.solving.solver import Outcome
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.executors.entry import ExecutableEntry
from gauntlet.bench.executors.executable import (
    BlockBatch,
    BlockResult,
    Executable,
    Prepared,
)
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.certificates.certify import UnsupportedModelError, certify, readable
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import Stats

_TOGETHER = 50
"""Samples that are certified together: hardly slower than a whole block, and a bar moves."""


@runtime_checkable
class CertifiesItself(Protocol):
    """A defended model with a certificate of its own, such as randomized smoothing."""

    def certify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions, int64 (N,), and the L2 radius within which each is certified, (N,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Certificate(Executable):
    """A certificate for a threat model. `time_limit`: seconds of the exact search for each sample."""

    threat: ThreatModel
    time_limit: float = 10.0

    version: ClassVar[int] = 2
    needs_profile: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive("time_limit", self.time_limit)

    @property
    def spec(self) -> str:
        """The certificate with its settings."""
        return f"certificate: {self!r}"

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Certify the samples of each block. Counterexamples of the search are verified like an attack's candidates.

        No certificate is computed for a model whose layers are not recognised.
        """
        prepared, verify = batch.prepared, batch.verify
        own = prepared.defended.model
        done, every = 0, len(verify.labels)

        def proven(count: int) -> None:
            nonlocal done
            done += count
            if batch.settings.watch is not None:
                batch.settings.watch(done / every)

        for number, place in enumerate(batch.places):
            with peak_memory(batch.settings.device) as peak:
                began = synchronised_time()
                rows = batch.to_attack(place)
                if isinstance(own, CertifiesItself):
                    certified, outcomes = _by_itself(own, self.threat, verify, rows)
                else:
                    certified, outcomes = _proven(prepared, self, verify, rows, proven)
                whole = None
                if certified is not None:
                    whole = torch.zeros(len(place), dtype=torch.bool, device=rows.device)
                    whole[rows - place.start] = certified
                seconds = synchronised_time() - began
            yield BlockResult(number, outcomes, Stats(seconds, peak.mib), whole)

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The settings and the version."""
        return {"kind": "certificate", "certificate": repr(self), "versions": self.versions}

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """A single technique with the name of the kind: a certificate is not an attack."""
        return {"": "certificate"}


def _by_itself(
    model: CertifiesItself, threat: ThreatModel, verify: Verifier, rows: Tensor
) -> tuple[Tensor | None, list[Outcome]]:
    prediction, radius = model.certify(verify.images[rows])
    sound = (prediction == verify.labels[rows]) & (radius >= threat.eps)
    return sound.to(rows.device), [Outcome(sample) for sample in rows.tolist()]


def _proven(
    prepared: Prepared, attack: Certificate, verify: Verifier, rows: Tensor, progress: Callable[[int], None]
) -> tuple[Tensor | None, list[Outcome]]:
    """Certify the samples a few at a time; `progress` is called with their number."""
    outcomes = {sample: Outcome(sample) for sample in rows.tolist()}
    certified, net, model = [rows[:0].bool()], None, prepared.defended.model
    for part in rows.split(_TOGETHER):
        try:
            net = readable(model, verify.images[part]) if net is None else net
            proof = certify(
                model,
                verify.images[part],
                verify.labels[part],
                attack.threat,
                ids=[verify.ids[row] for row in part.tolist()],
                time_limit=attack.time_limit,
                net=net,
            )
        except UnsupportedModelError:
            return None, [Outcome(sample) for sample in rows.tolist()]
        certified.append(proof.certified.to(rows.device))
        chosen = proof.found.to(rows.device).nonzero().squeeze(1)
        if len(chosen):
            points = proof.witness.to(verify.images)[chosen]
            verdict = verify(points, part[chosen], torch.zeros_like(chosen))
            for sample, point, won in zip(part[chosen].tolist(), points, verdict.success.tolist(), strict=True):
                if won:
                    outcomes[sample].adversarial = point.clone()
        progress(len(part))
    return torch.cat(certified), [*outcomes.values()]


def build(threat: ThreatModel, *, time_limit: float = 10.0) -> Certificate:
    """A certificate for that threat model. Raises ValueError for bad settings."""
    return Certificate(threat=threat, time_limit=time_limit)


_NORMS: tuple[Norm, ...] = ("Linf", "L2")


def _applies(card: DefenseCard, norm: Norm) -> bool:
    return norm in card.certificates


ENTRY = ExecutableEntry(
    AttackCard(
        name="certificate",
        summary="interval, CROWN and exact bounds of ReLU networks; smoothing's certificate",
        source="Gowal et al. 2018, arXiv 1810.12715; Zhang et al. 2018, arXiv 1811.00866; Cohen et al. 2019, arXiv 1902.02918",
        norms=_NORMS,
        kind="certificate",
        role="certificate",
    ),
    build,
    _applies,
)
