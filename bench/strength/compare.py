"""Attacks beside the authors' AutoAttack, condition by condition, and in sums over the networks of a norm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from gauntlet.attacks.ops.threat import NORMS, Norm
from gauntlet.bench.strength.conditions import CONDITIONS, Condition, Half
from gauntlet.bench.strength.measurements import Measurement


@dataclass(frozen=True)
class Line:
    """The measurements under a condition: the reference, and those of an attack with each seed."""

    condition: Condition
    reference: Measurement
    attack: str
    runs: tuple[Measurement, ...]
    """In the order of their seeds."""
    union: int
    """Number of samples that nothing broke that is measured under the condition, the reference included."""

    @property
    def standing(self) -> tuple[int, ...]:
        """Samples that stand, by seed."""
        return tuple(run.standing for run in self.runs)

    @property
    def excess(self) -> int:
        """Samples that stand beyond those of the reference, with the worst seed; negative where there are fewer."""
        return max(self.standing) - self.reference.standing

    @property
    def missed(self) -> tuple[int, ...]:
        """Samples that stand though the reference broke them, by seed."""
        return tuple(int((run.bits & ~self.reference.bits).sum()) for run in self.runs)

    @property
    def share(self) -> float:
        """Passes as a share of the reference's, the mean over the seeds."""
        return mean(run.passes for run in self.runs) / self.reference.passes


@dataclass(frozen=True)
class Total:
    """Sums over conditions of a norm."""

    attack: str
    norm: Norm
    half: Half
    lines: tuple[Line, ...]

    @property
    def reference(self) -> int:
        """Samples that the reference leaves."""
        return sum(line.reference.standing for line in self.lines)

    @property
    def standing(self) -> tuple[int, ...]:
        """Samples that stand, by seed."""
        return tuple(sum(seed) for seed in zip(*(line.standing for line in self.lines), strict=True))

    @property
    def share(self) -> float:
        """The mean share of the reference's passes: over conditions of a network, then over networks."""
        networks = dict.fromkeys(line.condition.network for line in self.lines)
        return mean(mean(line.share for line in self.lines if line.condition.network == one) for one in networks)

    @property
    def largest_share(self) -> float:
        """Of all conditions."""
        return max(line.share for line in self.lines)

    @property
    def excess(self) -> int:
        """See `Line.excess`; the largest of all conditions."""
        return max(line.excess for line in self.lines)

    @property
    def above_union(self) -> int:
        """The largest number of samples above the union, with the worst seed."""
        return max(max(line.standing) - line.union for line in self.lines)


def compare(
    measurements: Sequence[Measurement],
    reference: Sequence[Measurement],
    conditions: Sequence[Condition] = CONDITIONS,
) -> list[Line]:
    """A line for each condition and attack that are measured, where the reference has the same samples of the same network."""
    found = []
    for condition in conditions:
        known = _only(reference, condition)
        ours = [one for one in _only(measurements, condition) if known and _same_samples(one, known[0])]
        for attack in sorted({one.attack for one in ours} - {known[0].attack} if known else ()):
            runs = sorted((one for one in ours if one.attack == attack), key=lambda one: one.seed)
            found.append(Line(condition, known[0], attack, tuple(runs), _union([*ours, known[0]])))
    return found


def missing(reference: Sequence[Measurement], conditions: Sequence[Condition] = CONDITIONS) -> list[Condition]:
    """Conditions that are not in the reference."""
    return [condition for condition in conditions if not _only(reference, condition)]


def totals(lines: Iterable[Line]) -> list[Total]:
    """Sums for each attack, norm and half of the networks, over conditions that are measured with all seeds."""
    groups: dict[tuple[str, int, Half], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.attack, NORMS.index(line.condition.threat.norm), line.condition.half), []).append(line)
    made = []
    for (attack, norm, half), group in sorted(groups.items()):
        seeds = max(len(line.runs) for line in group)
        made.append(Total(attack, NORMS[norm], half, tuple(line for line in group if len(line.runs) == seeds)))
    return made


def _only(measurements: Sequence[Measurement], condition: Condition) -> list[Measurement]:
    wanted = condition.network, str(condition.threat)
    return [one for one in measurements if (one.network, one.threat) == wanted]


def _same_samples(one: Measurement, other: Measurement) -> bool:
    return (one.samples, one.weights, one.correct_bits) == (other.samples, other.weights, other.correct_bits)


def _union(measurements: Sequence[Measurement]) -> int:
    standing = measurements[0].bits
    for one in measurements[1:]:
        standing = standing & one.bits
    return int(standing.sum())
