"""The card and entry of an attack in the registry, and the types of attack that a cell can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from gauntlet.attacks.ops.threat import Norm, ThreatModel

if TYPE_CHECKING:  # listing attacks must not import torch
    from torch import Tensor, nn

    from gauntlet.attacks.solving.cascade import Cascade
    from gauntlet.attacks.solving.rule import Rule

AttackKind = Literal["white-box", "black-box", "decision-based", "transfer", "naive", "certificate", "corruption"]
Role = Literal["attack", "replay", "certificate", "corruption"]
"""What a cell does: search for adversarial examples, try stored ones, prove that there are none, or corrupt images."""
_GRADIENT_KINDS = ("white-box", "naive", "certificate")


class WholeAttack(Protocol):
    """An attack of another library or of a user that runs whole on a batch.

    Its changes to the model and to global state are undone (`gauntlet.attacks.views.guard`). A returned point that differs from
    its image is a claim of success, unless the attack has an attribute `returns_failures` that is true.
    """

    version: ClassVar[int]
    """Increased whenever the output changes: it is part of the key of stored results."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates, same shape as images (N, C, H, W) in [0, 1]; the image itself where the attack has no success.

        `model` returns logits (N, K). All images are classified correctly and lie on the model's device.
        """
        ...


class Deferred(Protocol):
    """Stands for an attack that can only be chosen once the pipeline is known, such as `adaptive`."""

    version: ClassVar[int]


@dataclass(frozen=True)
class AttackCard:
    """Description of an attack, for listings, plans and ranks."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper, or library."""
    norms: tuple[Norm, ...]
    kind: AttackKind = "white-box"
    minimum_norm: bool = False
    """Whether it seeks the smallest perturbation, whatever eps is."""
    role: Role = "attack"
    library: str = ""
    """The distribution that runs it, whose version is part of the key of stored results; empty for Gauntlet's own code."""
    report_as: str = ""
    """The name to report in a paper, which says exactly what was run; empty where `name` with settings and versions does."""

    @property
    def takes_gradients(self) -> bool:
        """Whether it needs gradients of the model, so that it cannot run on a black box."""
        return self.kind in _GRADIENT_KINDS

    @property
    def searches(self) -> bool:
        """Whether it searches for adversarial examples of its own, rather than proving, corrupting or transferring."""
        return self.role == "attack" and self.kind != "transfer"


AnyAttack: TypeAlias = "Rule[Any] | Cascade | WholeAttack | Deferred"


@dataclass(frozen=True)
class AttackEntry:
    """A registry entry: the card, and `build(threat, **settings)`, which raises ValueError for a wrong setting."""

    card: AttackCard
    build: Callable[..., AnyAttack]
    source_digest: str = ""
    """Digest of the code of an attack that is not Gauntlet's, for keys; set when the attack is registered."""

    def make(self, threat: ThreatModel, **settings: Any) -> AnyAttack:
        """The attack for that threat model. Raises ValueError that names a setting which the attack does not have."""
        if threat.norm not in self.card.norms:
            raise ValueError(f"attack {self.card.name!r} is for {', '.join(self.card.norms)}, not for {threat.norm}")
        try:
            return self.build(threat, **settings)
        except TypeError as error:
            raise ValueError(self._unfit(threat, settings, error)) from error

    def _unfit(self, threat: ThreatModel, settings: dict[str, Any], error: TypeError) -> str:
        try:
            names = [one.name for one in fields(self.build(threat)) if one.name != "threat"]  # type: ignore[arg-type]
        except TypeError:  # no dataclass, or it cannot be built without settings
            names = list(settings)
        unknown = [name for name in settings if name not in names]
        if not unknown:
            return f"settings {settings!r} do not fit attack {self.card.name!r}: {error}"
        has = f"has {', '.join(names)}" if names else "has no settings"
        return f"attack {self.card.name!r} has no setting {unknown[0]!r}: it {has}"
