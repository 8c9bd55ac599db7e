"""The interface `Executable`, which every kind of cell implements, and its input and output types.

Implementations: `native` (cascades that the solver runs), `library` (attacks that run whole), `replay`, `certificate` and
`corruption`. Only `bench.executors.make` looks at the type of an attack; all other code uses this interface.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Meter, Outcome, Stage, Verify
from gauntlet.attacks.views.fast_model import FastModel
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.executors.remeasure import Remeasured, remeasure_examples
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
    """None: see `Slots`."""
    fresh: bool = False
    keep_adversarials: bool = True
    watch: Callable[[float], None] | None = None
    """Called now and then with the share of the work on these blocks that is done, in 0..1."""

    def slots(self, image: Tensor) -> int:
        """Number of samples to attack at once, for images of this shape (C, H, W): about a million pixels in total.

        At least 32; at most 1,024 on a GPU, where `Slots` grow from there, and 384 on a CPU, whose caches do not hold more for
        small networks.
        """
        most = 1024 if self.device.type == "cuda" else 384
        return self.batch_size or max(32, min(most, 2**20 // image.numel()))


@dataclass(frozen=True)
class Slots:
    """The number of samples that a native attack takes at once on a pipeline and device, where no setting says it."""

    measure: Callable[[], int | None]
    """The number that was measured, now or before; None where the size of an image decides."""
    fitted: list[int] = field(default_factory=list)
    """Smaller numbers that were left when memory ran out, in this process."""

    def count(self, settings: RunSettings, image: Tensor) -> int:
        """The number for images of this shape (C, H, W). A number in `settings` is obeyed."""
        if settings.batch_size:
            return settings.batch_size
        return min([self.measure() or settings.slots(image), *self.fitted])

    def note(self, settings: RunSettings, meter: Meter) -> None:
        """Remember what was left where memory ran out."""
        if meter.fitted and not settings.batch_size:
            self.fitted.append(meter.fitted)


@dataclass(frozen=True)
class BlockResult:
    """The result of a finished block."""

    number: int
    outcomes: list[Outcome]
    """The outcome of each attacked sample; `sample` is its index among the samples of all blocks."""
    stats: Stats
    certified: Tensor | None = None
    """bool, for each sample of the block; None for executables that prove nothing."""
    samples: Samples | None = None
    """The recorded samples of an executable without outcomes; None: they are derived from `outcomes`."""
    again: Callable[[Sequence[int]], list[Outcome]] | None = None
    """Attacks samples again, whose examples wait for the verifier (`Outcome.unverified`) and do not hold; None: none waits."""


@dataclass(frozen=True)
class Facts:
    """Facts about the pipeline and the store by which an attack is chosen."""

    pipeline: DefendedModel
    profile: PipelineProfile | None
    """None if the attack does not need it."""
    masked: bool
    """Whether gradients are useless, even to attacks that know the defense's card."""
    cell: CellInfo
    ids: Sequence[str]
    examples: Callable[[ThreatModel, int, CellInfo, Sequence[str]], Mapping[str, Sequence[Any]]] | None = None
    """Looks up stored adversarial examples by sample id; None without a store."""


@dataclass(frozen=True)
class Trial:
    """Samples that a check attacks outside a cell. All are correct when clean."""

    model: nn.Module
    """The attacked pipeline, by which examples are verified."""
    view: nn.Module
    """The module that gradient attacks receive in its place."""
    victim: nn.Module
    """The module that attacks receive when they run whole."""
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
    """The range of each block in the verifier's samples."""
    settings: RunSettings

    def to_attack(self, place: range) -> Tensor:
        """Indices of the block's samples to attack among the verifier's samples, int64."""
        return place.start + self.clean.attacked[place.start : place.stop].nonzero().squeeze(1)


class Executable(Protocol):
    """The interface of everything that a cell can run. Implementations inherit the defaults."""

    version: ClassVar[int] = 1
    """Rises with every change of the output."""
    needs_profile: ClassVar[bool] = False
    """Whether the pipeline must be measured before the attack is chosen."""
    repeatable: ClassVar[bool] = True
    """Whether the key stays the same. The key of a replay changes with the examples in the store."""

    @property
    def spec(self) -> str:
        """The attack with all its resolved settings, as text: part of a cell's identity."""
        ...

    @property
    def report_as(self) -> str:
        """The name to report in a paper; empty where the attack has no other than its own."""
        return ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the solver runs.

        Empty for executables that do not use the solver. Their outcome for a sample may depend on its batch.
        """
        return ()

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of the stages' rules, or its own version. They rise with every change of the output."""
        return (self.version,)

    @property
    def code(self) -> str:
        """The digest of its code; empty for Gauntlet's own attacks, which have versions."""
        return ""

    @property
    def gradient_steps(self) -> int | None:
        """Forward and backward passes of a sample, where an attack that runs whole states them; None: unknown."""
        return None

    @property
    def follows_gradients(self) -> bool:
        """Whether it follows the model's own gradients, and takes those of BPDA where these are of no use."""
        return False

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities at which a corruption changes each image; empty for everything else."""
        return ()

    def in_low_precision(self, pipeline: DefendedModel, form: str) -> Executable | None:
        """The attack on a form of the pipeline in low precision, such as `bf16+folded`, its last stages in float32; None: all of
        it is in float32."""
        return None

    def resolve(self, facts: Facts) -> Executable:
        """The executable for this pipeline: an adaptive attack chooses its stages, a replay loads its examples."""
        return self

    @abstractmethod
    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Run on blocks. Yields the result of each block when it is finished."""
        ...

    @abstractmethod
    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The parts of the cache key beside `spec` that decide the outcome of these samples: versions, code, examples."""
        ...

    @abstractmethod
    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """The technique of each stage by its label. An executable without stages has one technique with the empty label."""
        ...

    def victim(self, pipeline: DefendedModel, profile: PipelineProfile | None) -> nn.Module:
        """The module that the attack receives when it runs whole: the pipeline, with BPDA if it is not differentiable."""
        return pipeline.attack_view()

    def harder(self) -> Executable:
        """The attack with twice the steps or queries and one more restart, if it has these settings."""
        return self

    def attempt(self, trial: Trial) -> list[Outcome]:
        """Attack the samples of a check. Returns an outcome for each, in order. Raises TypeError if this is not an attack."""
        raise TypeError(f"{self.spec} cannot be used by a check: name an attack that searches for examples")

    def remeasure(
        self, prepared: Prepared, verify: Verifier, samples: Samples, slack: npt.NDArray[np.float64]
    ) -> Remeasured:
        """Measure the stored examples of a block again; flips within a sample's `slack` (N,) of the boundary are rounding."""
        return remeasure_examples(prepared.cell, verify, samples, slack)


@dataclass(frozen=True)
class Block:
    """A fixed block of samples: the key of its result, and its samples as indices into the cell's data."""

    key: str
    indices: Sequence[int]
    data: str
    """sha256 of its images, labels and ids."""


@dataclass(frozen=True)
class Prepared:
    """A cell with everything that is needed to run it."""

    cell: Cell
    data: Data
    defended: DefendedModel
    card: DefenseCard
    attack: Executable
    light: FastModel
    """The form of `defended` on which native attacks run."""
    victim: nn.Module
    """The module that attacks receive when they run whole."""
    check: Callable[[], tuple[Flag, ...]]
    """Runs the requested checks, at most once. Stored results are used if there are any."""
    views: Mapping[str, nn.Module]
    """Modules that stages can receive in place of the pipeline, by name."""
    blocks: tuple[Block, ...]
    weights: str
    """sha256 of the model's parameters and buffers."""
    flags: tuple[Flag, ...]
    block: Callable[[Sequence[int]], Block]
    """A block with a subset of the samples, by their indices."""
    device: torch.device
    by_batch: bool
    """Whether the model's answers depend on the other images of a batch."""
    measured: Mapping[str, Measurement]
    """Measurements of this preparation by key, which are to be stored; checks add their own."""
    slots: Slots
