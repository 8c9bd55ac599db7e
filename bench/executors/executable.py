"""The interface of what a cell runs, with the plain data that goes in and comes out.

Five implementations: `native` (the solver's cascades), `library` (attacks that run whole), `replay`, `certificate` and
`corruption`. Only `bench.executors.make` asks what an attack is; everything else uses this interface.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Outcome, Stage, Verify
from gauntlet.attacks.views.fast_model import FastModel
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.verify.sample_record import CleanEvaluation
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import PipelineProfile
from gauntlet.leaderboard.results.measurements import Measurement
from gauntlet.leaderboard.results.record import CellInfo, Flag, Samples, Stats


@dataclass(frozen=True)
class RunSettings:
    """How to run cells. None of these settings changes an outcome."""

    device: torch.device
    batch_size: int | None = None
    """None: chosen by the size of an image."""
    fresh: bool = False
    keep_adversarials: bool = True

    def slots(self, image: Tensor) -> int:
        """Samples to attack at once, for images like this (C, H, W): about a million pixels, at least 32 samples.

        At most 1,024 on a GPU; on a CPU 384, beyond which small networks fall out of its caches.
        """
        most = 1024 if self.device.type == "cuda" else 384
        return self.batch_size or max(32, min(most, 2**20 // image.numel()))


@dataclass(frozen=True)
class BlockResult:
    """The result of a finished block."""

    number: int
    outcomes: list[Outcome]
    """One for each attacked sample; `sample` counts through the samples of all blocks."""
    stats: Stats
    certified: Tensor | None = None
    """bool, for each sample of the block; None where nothing was to be proven."""
    samples: Samples | None = None
    """The recorded samples, where no example is sought; None: derived from the outcomes."""


@dataclass(frozen=True)
class Remeasured:
    """What measuring a stored block again gave."""

    failures: list[str]
    examples: int
    """Adversarial examples measured."""
    boundary: int
    """Predictions that flipped within the rounding margin: reported, not failures."""
    not_kept: int
    """Examples that the store does not hold."""
    robust: int
    """Samples that are robust by the new measurement."""
    mismatch: str = ""
    """A sentence where the stored verdicts do not follow from what was measured: a failure, unless another one explains it."""


@dataclass(frozen=True)
class Facts:
    """What is known of a pipeline and of the store when an attack is chosen."""

    pipeline: DefendedModel
    profile: PipelineProfile | None
    """None where the attack does not ask for it."""
    masked: bool
    """Whether gradients are of no use to attacks that know the defense's card."""
    cell: CellInfo
    ids: Sequence[str]
    examples: Callable[[ThreatModel, int, CellInfo, Sequence[str]], Mapping[str, Sequence[Any]]] | None = None
    """Looks up stored adversarial examples by sample id; None where there is no store."""


@dataclass(frozen=True)
class Trial:
    """Samples that a check attacks outside a cell; all of them are correct when clean."""

    model: nn.Module
    """The attacked pipeline: it decides."""
    view: nn.Module
    """What gradient attacks receive in its place."""
    victim: nn.Module
    """What attacks that run whole receive."""
    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    seed: int
    verify: Verify
    classes: int
    randomised: bool = False
    rejects: bool = False
    views: Mapping[str, nn.Module] | None = None


@dataclass(frozen=True)
class BlockBatch:
    """Blocks that are run together."""

    prepared: Prepared
    verify: Verifier
    """Holds the samples of all blocks."""
    clean: CleanEvaluation
    places: Sequence[range]
    """Where each block lies in the verifier's samples."""
    settings: RunSettings

    def to_attack(self, place: range) -> Tensor:
        """The samples of a block that have to be attacked, as rows of the verifier's, int64."""
        return place.start + self.clean.attacked[place.start : place.stop].nonzero().squeeze(1)


class Executable(Protocol):
    """What a cell runs. Implementations derive from it and take over the defaults that fit them."""

    version: ClassVar[int] = 1
    """Rises with every change of the output."""
    needs_profile: ClassVar[bool] = False
    """Whether the pipeline must be measured before the attack is chosen."""
    repeatable: ClassVar[bool] = True
    """Whether the same question later has the same key. A replay's depends on what the store holds by then."""

    @property
    def spec(self) -> str:
        """The attack with all its resolved settings, as text: part of a cell's identity."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the solver runs, which decide each sample by itself.

        Empty where the solver has no part: the outcome may then depend on the batch.
        """
        return ()

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the rules of its stages, or its own: they rise with every change of the output."""
        return (self.version,)

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities at which a corruption changes each image; empty for everything else."""
        return ()

    def resolve(self, facts: Facts) -> Executable:
        """What is run on this pipeline: an adaptive attack chooses its stages, a replay loads its examples."""
        return self

    @abstractmethod
    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Run on blocks; each is yielded as soon as it is finished."""
        ...

    @abstractmethod
    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """What decides the outcome on the samples with these ids beside `spec`: versions, code, examples."""
        ...

    @abstractmethod
    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """The technique of each stage by its label; the empty label stands for an attack without stages."""
        ...

    def victim(self, pipeline: DefendedModel, profile: PipelineProfile | None) -> nn.Module:
        """The module that the attack receives when it runs whole: the pipeline, with a gradient by BPDA where it has none."""
        return pipeline.attack_view()

    def harder(self) -> Executable:
        """The attack with twice the steps or queries and one more restart, as far as it has such settings."""
        return self

    def attempt(self, trial: Trial) -> list[Outcome]:
        """Attack the samples of a check: an outcome for each, in order. Raises TypeError for what is no attack."""
        raise TypeError(f"{self.spec} cannot be put to a check: name an attack that searches for examples")

    @abstractmethod
    def remeasure(self, prepared: Prepared, verify: Verifier, samples: Samples, slack: float) -> Remeasured:
        """Measure a stored block again; flips within `slack` of the decision boundary are rounding."""
        ...


@dataclass(frozen=True)
class Block:
    """A fixed block of samples: the key of its result, and its samples as indices into the cell's data."""

    key: str
    indices: Sequence[int]
    data: str
    """sha256 of its images, labels and ids."""


@dataclass(frozen=True)
class Prepared:
    """A cell with everything that running it needs."""

    cell: Cell
    data: Data
    defended: DefendedModel
    card: DefenseCard
    attack: Executable
    light: FastModel
    """The form of `defended` that native attacks run on."""
    victim: nn.Module
    """The module that attacks receive when they run whole."""
    check: Callable[[], tuple[Flag, ...]]
    """Runs the requested checks; results are remembered, and checks run only where the store does not answer."""
    views: Mapping[str, nn.Module]
    """Modules that stages may receive in place of the pipeline, by name."""
    blocks: tuple[Block, ...]
    weights: str
    """sha256 of the model's parameters and buffers."""
    flags: tuple[Flag, ...]
    block: Callable[[Sequence[int]], Block]
    """A block with a subset of the samples, by their indices."""
    device: torch.device
    measured: Mapping[str, Measurement]
    """Measurements that were taken here and are not stored yet, by key; checks add theirs."""
