"""What running a cell gave: one type from the runner to the CSV."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

SCHEMA_VERSION = 3

DRAWS = 20
"""Fresh draws of a randomised model for one judgement of the verifier."""

_ROLES = ("certificate", "corruption")
_UNGATED_KINDS = ("naive",)
_UNREPLAYED_KINDS = ("naive", "transfer")

Severity = Literal["block", "warn"]


@dataclass(frozen=True)
class Flag:
    """Something that a reader must know before trusting a figure."""

    name: str
    """Short and stable, for instance `zero-gradient`."""
    severity: Severity
    """`block`: the row gets no rank, unless all techniques that `needs` names have been run. `warn`: shown only."""
    message: str
    """A sentence with the evidence and what to do next."""
    needs: tuple[str, ...] = ()
    """Techniques (see `CellInfo.techniques`) after which a block no longer stands; empty: it always stands."""
    evidence: tuple[tuple[str, float], ...] = ()
    """Figures by name."""
    samples: tuple[str, ...] = ()
    """Ids of samples that show it, the first few."""
    lifted_by: tuple[str, ...] = ()
    """The evidence that lifted a block, where some did. Reserved: always empty in this version."""

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Flag:
        """A flag from its stored fields."""
        evidence = tuple((str(name), float(value)) for name, value in fields.get("evidence", ()))
        rest = {name: tuple(fields.get(name, ())) for name in ("needs", "samples", "lifted_by")}
        return cls(fields["name"], fields["severity"], fields["message"], evidence=evidence, **rest)

    def fields(self) -> dict[str, Any]:
        """Its fields as JSON gives them back, for `read`."""
        return {
            **asdict(self),
            "evidence": [list(pair) for pair in self.evidence],
            **{name: list(getattr(self, name)) for name in ("needs", "samples", "lifted_by")},
        }

    def stands(self, techniques: Collection[str]) -> bool:
        """Whether it keeps a row that was attacked by these techniques from being ranked."""
        return self.severity == "block" and not (self.needs and set(self.needs) <= set(techniques))


@dataclass(frozen=True)
class CellInfo:
    """What was asked of a cell, as plain fields; the same for all blocks of the cell."""

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
    """Canonical text of the threat model, which ends in `:target=…` where the attack is towards a class."""
    suite: str
    data: str
    seed: int
    precision: str = "float32"
    """The form of the model that was attacked: `float32` as it is, else such as `bf16+channels_last+folded`."""
    minimum_norm: bool = False
    randomised: bool = False
    techniques: Mapping[str, str] = field(default_factory=dict)
    """The technique of each stage by its label (the empty label stands for an attack without stages): `white-box`, `bpda`,
    `eot`, `beneath` (an output defense), `transfer` or `black-box`. Known once the cell is prepared."""
    role: str = ""
    """`attack`, `replay`, `certificate` or `corruption`; by default what `attack_kind` says."""
    severities: tuple[int, ...] = ()
    """The severities at which a corruption changes each image; empty for other cells."""

    def __post_init__(self) -> None:
        if not self.role:
            object.__setattr__(self, "role", self.attack_kind if self.attack_kind in _ROLES else "attack")

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> CellInfo:
        """A cell from its stored fields. Raises TypeError for fields that it does not have."""
        return cls(**{**fields, "severities": tuple(fields.get("severities", ()))})

    @property
    def adversarial(self) -> bool:
        """Whether an adversary is at work: a certificate proves, and a corruption happens."""
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

        A naive attack says nothing of robustness, certificates and corruptions attack nothing, and a replay faces more examples
        in a later run.
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
    """On the adversarial example where one was found, else the clean prediction. Of a corruption: at the first severity at
    which it is wrong."""
    robust: npt.NDArray[np.bool_]
    """Correct when clean, and no verified adversarial example within eps (towards a class: none that is taken for it). Of a
    corruption: correct when clean and at every severity."""
    distance: npt.NDArray[np.float64]
    """Measured distance of the verified example in the threat model's norm; NaN where there is none."""
    margin: npt.NDArray[np.float64]
    """Verified, at the example (else clean), negative where the attack succeeds: logit of the label minus the largest other
    one; towards another class than the label, the largest other logit minus the target's. Of a corruption: the smallest over
    its severities."""
    forwards: npt.NDArray[np.float64]
    """Forward passes of the attack on this sample (a mean over the batch for whole attacks of other libraries)."""
    backwards: npt.NDArray[np.float64]
    steps: npt.NDArray[np.int64]
    """Attack steps until the verified success; -1 where there was none."""
    wrong_share: npt.NDArray[np.float64]
    """Randomised models: share of fresh draws that misclassify the example (inside eps, else the clean image), towards a
    class, as that class; else 0 or 1. Of a corruption: share of the severities at which the sample is misclassified (of a
    randomised model, by most draws)."""
    wrong_share_scored: npt.NDArray[np.float64]
    """The same on a second, independent set of draws, used for the score once the worst attack is chosen. Of a corruption: 1
    where the sample is misclassified at any severity, else 0."""
    adversarial: Sequence[npt.NDArray[np.floating[Any]] | None]
    """The verified example (C, H, W), None where there is none or where it was not kept."""
    stage: Sequence[str] = ()
    """Of a cascade, the stage that broke each sample, empty text where none did; no entries for other attacks."""
    certified: npt.NDArray[np.bool_] | None = None
    """Of a certificate: no point of the ball is misclassified, by proof; None for attacks."""
    severities: Sequence[str] = ()
    """Of a corruption, the severities at which each sample is misclassified, separated by blanks; no entries for attacks."""

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
    """Points an attack claimed that the verifier refused: outside the ball or the box, or not finite."""
    disagreements: int = 0
    """Candidates that were misclassified in one batch composition only: not counted as successes."""
    occupancy: float | None = None
    """Share of the batch's slots that were filled, a mean over the cell's steps so far; None for whole attacks."""
    halved: int = 0
    """How often memory had run out by then, and the batch was halved."""
    masked_fallback: int = 0
    """Samples whose gradients looked masked, so that stages which need none were added."""
    masked_fallback_passes: float = 0.0
    """Forward and backward passes of those stages, summed over the samples."""
    speculative_passes: float = 0.0
    """Passes whose result was not used. Reserved: always 0 in this version."""


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
    """Answered from the store rather than run now."""
    clean_logits: npt.NDArray[np.float64] | None = None
    """(N, K) of a cell's first block, to notice on a hit that the model answers otherwise; None elsewhere."""
    behaviour: str = ""
    """A digest of the model's behaviour. Reserved: empty in this version."""


@dataclass(frozen=True)
class CellError:
    """A cell, or a block of it, that failed: shown in the table, never counted as robust, tried again by the next run."""

    cell: CellInfo
    kind: str
    """The exception's class."""
    message: str
    traceback: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CellResult:
    """All that is known of one cell of a run: its blocks in order, and the error if it did not finish."""

    cell: CellInfo
    blocks: tuple[Record, ...]
    error: CellError | None = None
    expected: int = 0
    """Samples that the plan asks for; fewer in the blocks means that the cell is not finished."""
