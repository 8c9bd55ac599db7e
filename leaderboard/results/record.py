"""The record of a cell's results: the same type from the runner to the CSV."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.spent import Spent

SCHEMA_VERSION = 3

DRAWS = 20
"""Number of fresh draws of a randomised model for each judgement of the verifier."""

_ROLES = ("certificate", "corruption")
_UNGATED_KINDS = ("naive",)
_UNREPLAYED_KINDS = ("naive", "transfer")

Severity = Literal["block", "warn"]

EVIDENCE = "evidence"
"""Among the needs of a flag: that the attack has been shown to work on this pipeline (`gauntlet.leaderboard.rows.evidence`)."""


@dataclass(frozen=True)
class Flag:
    """A reason not to trust a figure, found by a check."""

    name: str
    """Short and stable, for instance `zero-gradient`."""
    severity: Severity
    """`block`: the row has no rank unless the techniques in `needs` answer it. `warn`: shown only."""
    message: str
    """A sentence with the evidence and a remedy."""
    needs: tuple[str, ...] = ()
    """Techniques (see `CellInfo.techniques`) that lift a block once every sample that stands has faced all of them; with
    `EVIDENCE`, only where the attack has also been shown to work. A test of an attack's strength needs its own name: another
    attack of the row that passes it. If empty, nothing lifts the block."""
    evidence: tuple[tuple[str, float], ...] = ()
    """Figures by name."""
    samples: tuple[str, ...] = ()
    """Ids of some samples that show the problem."""
    lifted_by: tuple[str, ...] = ()
    """The techniques that answered a block and the kinds of evidence, in the flags of a row; always empty in stored blocks, which
    do not know their row."""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Flag:
        """A flag from its stored fields."""
        evidence = tuple((str(name), float(value)) for name, value in fields.get("evidence", ()))
        rest = {name: tuple(fields.get(name, ())) for name in ("needs", "samples", "lifted_by")}
        return cls(fields["name"], fields["severity"], fields["message"], evidence=evidence, **rest)

    def fields(self) -> dict[str, Any]:
        """The fields in the form of JSON, for `read`."""
        return {
            **asdict(self),
            "evidence": [list(pair) for pair in self.evidence],
            **{name: list(getattr(self, name)) for name in ("needs", "samples", "lifted_by")},
        }

    def stands(self, techniques: Collection[str]) -> bool:
        """Whether the flag blocks the rank of a row whose standing samples have all faced these techniques."""
        return self.severity == "block" and not (self.needs and set(self.needs) <= set(techniques))


@dataclass(frozen=True)
class CellInfo:
    """The identity of a cell as plain fields; the same for all blocks of the cell."""

    model: str
    defense: str
    """Registry name with settings, or `none`."""
    attack: str
    """The label in its suite, unique within the run for a row."""
    attack_spec: str
    """Name with all resolved settings."""
    attack_kind: str
    """`white-box`, `black-box`, `decision-based`, `transfer`, `naive`, `certificate` or `corruption`."""
    norm: str
    eps: float
    threat: str
    """Canonical text of the threat model; ends in `:target=…` for a targeted attack."""
    suite: str
    data: str
    seed: int
    precision: str = "float32"
    """The attacked form of the model: `float32` for the model itself, else for instance `bf16+channels_last+folded`."""
    minimum_norm: bool = False
    randomised: bool = False
    techniques: Mapping[str, str] = field(default_factory=dict)
    """The technique of each stage by its label (the empty label stands for an attack without stages): `white-box`, `bpda`,
    `eot`, `beneath` (an output defense), `transfer`, `black-box` or `probe` (a black-box search too short to answer anything).
    Known once the cell is prepared."""
    role: str = ""
    """`attack`, `replay`, `certificate` or `corruption`; by default derived from `attack_kind`."""
    rejects: bool = False
    """Whether the model may reject an image, which is no success of an attack. Known once the cell is prepared."""
    severities: tuple[int, ...] = ()
    """The severities at which a corruption changes each image; empty for other cells."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the labels, of a model that is restricted to some of its own; empty for others. Known
    once the cell is prepared."""

    def __post_init__(self) -> None:
        if not self.role:
            object.__setattr__(self, "role", self.attack_kind if self.attack_kind in _ROLES else "attack")

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> CellInfo:
        """A cell from its stored fields. Raises TypeError for unknown fields."""
        return cls(**{**fields, **{name: tuple(fields.get(name, ())) for name in ("severities", "classes")}})

    @property
    def adversarial(self) -> bool:
        """Whether samples face an adversary: in attacks and replays, not in certificates and corruptions."""
        return self.role in ("attack", "replay")

    @property
    def corrupts(self) -> bool:
        """Whether images are corrupted instead of attacked."""
        return self.role == "corruption"

    @property
    def proves(self) -> bool:
        """Whether robustness is proven."""
        return self.role == "certificate"

    @property
    def replays(self) -> bool:
        """Whether stored adversarial examples are tried."""
        return self.role == "replay"

    @property
    def searches(self) -> bool:
        """Whether adversarial examples are searched for."""
        return self.role == "attack"

    @property
    def naive(self) -> bool:
        """Whether the attack ignores the defense; its figure stands beside those of adaptive attacks."""
        return self.attack_kind == "naive"

    @property
    def gated(self) -> bool:
        """Whether a gate judges the cell.

        Not judged are naive attacks, which say nothing about robustness; certificates and corruptions, which attack nothing; and
        replays, whose examples differ between runs.
        """
        return self.role == "attack" and self.attack_kind not in _UNGATED_KINDS

    @property
    def replayable(self) -> bool:
        """Whether the cell's examples are replayed against other models and defenses."""
        return self.attack_kind not in _UNREPLAYED_KINDS

    @property
    def title(self) -> str:
        """Readable and unique within a run of one threat model."""
        return f"{self.model} × {self.defense} × {self.attack}"


@dataclass(frozen=True)
class Samples:
    """Per-sample outcomes of a block or a cell, arrays of length N in the order of the plan."""

    id: npt.NDArray[np.str_]
    label: npt.NDArray[np.int64]
    clean_prediction: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    """The prediction on the adversarial example if there is one, else on the clean image. Corruptions: at the first severity at
    which the sample is misclassified, else on the clean image."""
    robust: npt.NDArray[np.bool_]
    """Correct when clean, and without a verified adversarial example within eps (targeted: an example that is classified as the
    target). Corruptions: correct when clean and at every severity."""
    distance: npt.NDArray[np.float64]
    """Measured distance of the verified example in the threat model's norm; NaN if there is none."""
    margin: npt.NDArray[np.float64]
    """Verified margin at the example, else at the clean image; negative if the attack succeeds. Logit of the label minus the
    largest other logit; targeted: largest other logit minus the target's. Corruptions: the smallest over the severities."""
    forwards: npt.NDArray[np.float64]
    """Forward passes of the attack on this sample (for attacks that run whole, the mean over the batch)."""
    backwards: npt.NDArray[np.float64]
    steps: npt.NDArray[np.int64]
    """Attack steps until the verified success; -1 without success."""
    wrong_share: npt.NDArray[np.float64]
    """For randomised models the share of fresh draws that misclassify the example within eps, else the clean image (targeted:
    that classify it as the target); for other models 0 or 1. Corruptions: share of the severities at which the sample is
    misclassified (for randomised models, by most draws)."""
    wrong_share_scored: npt.NDArray[np.float64]
    """The same on a second, independent set of draws, by which the worst attack is scored once it is chosen. Corruptions: 1 if
    the sample is misclassified at any severity, else 0."""
    adversarial: Sequence[npt.NDArray[np.floating[Any]] | None]
    """The verified example (C, H, W); None if there is none, or if it was not kept."""
    clean: Sequence[npt.NDArray[np.uint8]] = ()
    """The clean images (C, H, W) in levels of 0 to 255, of which examples are stored as differences; no entries where these are
    stored as they are, or were not read."""
    stage: Sequence[str] = ()
    """Cascades: the stage that broke each sample, or an empty text; no entries for other attacks."""
    faced: Sequence[str] = ()
    """Cascades: the labels of the stages that each sample faced, separated by blanks; no entries for other attacks."""
    certified: npt.NDArray[np.bool_] | None = None
    """Certificates: whether it is proven that no point of the ball is misclassified; None for other cells."""
    severities: Sequence[str] = ()
    """Corruptions: the severities at which each sample is misclassified, separated by blanks; no entries for other cells."""

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Correct when clean, bool (N,)."""
        return np.equal(self.clean_prediction, self.label)

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True)
class Stats:
    """Costs and incidents of a block; they add up over a cell, except the peak."""

    seconds: float
    """The attack's alone."""
    peak_memory_mib: float
    candidates_rejected: int = 0
    """Candidates that the verifier rejected: outside the ball or the box, or not finite."""
    disagreements: int = 0
    """Candidates that are misclassified in one batch composition only; they do not count as successes."""
    occupancy: float | None = None
    """Mean share of filled slots in the batch over the cell's steps so far; None for attacks that run whole."""
    halved: int = 0
    """How often the batch was halved so far because memory ran out."""
    masked_fallback: int = 0
    """Number of samples whose gradients looked masked, so that stages without gradients were added."""
    masked_fallback_passes: float = 0.0
    """Forward and backward passes of those stages, summed over the samples."""
    masked: int | None = None
    """Number of samples that the attack left standing although most of its gradients vanished, or that looked masked; None: not
    recorded."""
    speculative_passes: float = 0.0
    """Passes of restarts that ran beside an earlier one and were not needed; no other count has them."""
    outside_ball: int | None = None
    """Attacks that run whole: points that were returned inside the box but outside the ball; None: not recorded."""
    outside_box: int | None = None
    """The same: points outside the box, or not finite."""
    false_claims: int | None = None
    """The same: valid points that the attack returned as successes, which the verifier does not confirm."""


@dataclass(frozen=True)
class Record:
    """One stored block of a cell."""

    key: str
    """Content hash of everything that decides the outcome."""
    cell: CellInfo
    samples: Samples
    stats: Stats
    flags: tuple[Flag, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Commit, dirty flag, package versions, device, determinism flags, argv, time."""
    cached: bool = False
    """Whether it was read from the store rather than run now."""
    clean_logits: npt.NDArray[np.float64] | None = None
    """(N, K), of a cell's first block, to detect a changed model when the block is reused; None for other blocks."""
    behaviour: str = ""
    """A digest of the model's behaviour. Reserved: empty in this version."""


@dataclass(frozen=True)
class CellError:
    """The failure of a cell or a block. It is shown in the table, never counts as robust, and the next run tries again."""

    cell: CellInfo
    kind: str
    """The exception's class."""
    message: str
    traceback: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellResult:
    """The result of a cell of a run: its finished blocks in order, and its error if it failed."""

    cell: CellInfo
    blocks: tuple[Record, ...]
    error: CellError | None = None
    expected: int = 0
    """Number of samples in the plan; if the blocks have fewer, the cell is not finished."""
    spent: Spent | None = None
    """Where the seconds of the runs that computed its blocks went; None where that is not known."""
