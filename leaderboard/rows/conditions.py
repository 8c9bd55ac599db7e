"""The conditions under which a row was measured: rows are compared with each other only if these are equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gauntlet.leaderboard.results.summary import CellSummary
from gauntlet.leaderboard.rows.worst_case import WorstCase

BLACK_BOX_FLAG = "black-box-access"
"""Name of the flag of models of which the outputs alone can be observed."""
LABELS_ONLY = "labels_only"
"""Evidence of that flag: 1 if not even scores can be observed, but predicted classes alone."""

Access = Literal["white-box", "scores", "labels"]


@dataclass(frozen=True)
class Conditions:
    """Data, threat model, attacks and samples of a row.

    Attacks are those that were asked for. What was measured of a model (the stages of an adaptive attack, the form that was
    attacked, the examples that a replay found) is not part of the conditions, nor are certificates and corruptions.
    """

    threat: str
    data: str
    suite: str
    seeds: tuple[int, ...]
    access: Access
    """What an attack may observe of the model. Suites are reduced for black boxes, which are compared among themselves."""
    attacks: tuple[tuple[str, str], ...]
    """Labels and settings, sorted: the suite's name is not enough, since `custom` contains any attacks."""
    ids: tuple[str, ...]
    """Of the samples that every attack covered, in order."""
    images: tuple[str, ...]
    """Digests of the blocks' images and labels: different files may have the same name and ids."""


def conditions(results: Sequence[CellSummary], worst: WorstCase) -> Conditions:
    """The conditions of a row: of its cells, and of their worst case, whose samples they share."""
    cell = results[0].cell
    attacks = {(r.cell.attack, r.cell.attack_spec) for r in results if r.cell.adversarial}
    blocks = max((result.blocks for result in results), key=len)
    return Conditions(
        threat=cell.threat,
        data=cell.data,
        suite=cell.suite,
        seeds=tuple(sorted({result.cell.seed for result in results})),
        access=_access(results),
        attacks=tuple(sorted(attacks)),
        ids=worst.samples.names,
        images=tuple(block.data for block in blocks),
    )


def _access(results: Sequence[CellSummary]) -> Access:
    flags = [flag for result in results for flag in result.flags if flag.name == BLACK_BOX_FLAG]
    if not flags:
        return "white-box"
    return "labels" if any(dict(flag.evidence).get(LABELS_ONLY) for flag in flags) else "scores"


_WORDS: Final = {"threat": "threat model", "data": "data", "suite": "suite", "seeds": "seeds", "access": "access"}


def differences(other: Conditions, own: Conditions) -> Iterator[str]:
    """A few words on each difference of `own` from `other`; nothing if they are equal."""
    for name, word in _WORDS.items():
        old, new = getattr(other, name), getattr(own, name)
        if old != new:
            yield f"{word} {_text(new)} instead of {_text(old)}"
    if other.attacks != own.attacks and other.threat == own.threat and other.suite == own.suite:
        unlike = sorted({label for label, _ in set(other.attacks) ^ set(own.attacks)})
        yield f"other attacks or settings ({', '.join(unlike)})"
    if other.ids != own.ids:
        common = len(set(other.ids) & set(own.ids))
        yield f"other samples ({len(own.ids)} instead of {len(other.ids)}, {common} in common)"
    elif other.images != own.images:
        yield "other images or labels under the same ids"


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
