"""The plan: configuration in, an ordered list of cells out. Pure, but for looking names up in the registries."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.registry.card import AnyAttack, AttackEntry
from gauntlet.attacks.registry.settings import Named, parse_named
from gauntlet.attacks.registry.suites import SUITES, Member, suite_members
from gauntlet.bench.config.schema import Config, ConfigError, DataRef, Group, ModelRef
from gauntlet.bench.data.data_name import data_title
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.registries import ATTACKS, DEFENSES, MODELS
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.bench.registry.registry import Registry
from gauntlet.bench.registry.validate import attack_told
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.leaderboard.results.record import CellInfo

R = TypeVar("R", ModelRef, DataRef)


@dataclass(frozen=True)
class Cell:
    """One model × defense × attack × threat model × data × seed, with all that is needed to run it."""

    info: CellInfo
    model: ModelRef
    defense: Named
    attack: Named
    threat: ThreatModel
    data: DataRef

    @property
    def name(self) -> str:
        """Identity of the cell within a store, as a file name: what was asked, not what it gave."""
        parts = (self.model, str(self.defense), self.info.attack_spec, str(self.threat), self.data, self.info.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def make_attack(self) -> AnyAttack:
        """The attack, configured by the threat model."""
        return ATTACKS.get(self.attack.name).make(self.threat, **self.attack.keywords)


@dataclass(frozen=True)
class Plan:
    """The cells in order, and why others that were asked for are not among them."""

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...] = ()

    def title(self, cell: Cell) -> str:
        """Readable, and unique within the plan: other threat models than the plan's first are named, and data, seed and
        suite where the same pairing is planned in several."""
        title = cell.info.title
        if cell.threat != self.cells[0].threat:
            title += f" {cell.threat}"
        twins = [one for one in self.cells if one.info.title == cell.info.title and one.threat == cell.threat]
        if len({one.data for one in twins}) > 1:
            title += f" on {cell.info.data}"
        if len({one.info.seed for one in twins}) > 1:
            title += f" (seed {cell.info.seed})"
        return f"{title} in {cell.info.suite}" if len({one.info.suite for one in twins}) > 1 else title


def make_plan(config: Config, extra: Registry[DefenseEntry] | None = None) -> Plan:
    """All cells that `config` asks for, each once in a suite; `extra` has defenses beside the registered ones.

    Raises ConfigError, ValueError and LookupError for names and settings, PluginError for a plugin.
    """
    load_plugins(config.plugins)
    cells: dict[tuple[str, str], Cell] = {}
    skipped: list[str] = []
    norms = [(group, ThreatModel.parse(text).norm) for group in config.groups for text in group.threats]
    models = _names((ref for group, norm in norms for ref in _models(group, norm)), model_name)
    guards = {text: _guard(text, extra) for group in config.groups for text in group.defenses}
    data = _names((_data(group, guards[text]) for group in config.groups for text in group.defenses), data_name)
    for group in config.groups:
        for text in group.threats:
            threat = ThreatModel.parse(text)
            members = list(_members(group, threat.norm, skipped))
            for model in _models(group, threat.norm):
                allowed = list(_allowed(members, model, models[model], threat.norm, skipped))
                for defense in group.defenses:
                    guard, ref = guards[defense], _data(group, guards[defense])
                    for suite, member in allowed:
                        if not _applies(member, guard, threat.norm):
                            continue
                        names = models[model], data[ref]
                        cell = _cell(ref, model, names, parse_named(defense), guard, member, suite, threat, config.seed)
                        cells.setdefault((cell.name, suite), cell)
    skipped += [*MODELS.problems, *ATTACKS.problems]
    # Replays come last: they try what the others have found.
    ordered = sorted(cells.values(), key=lambda cell: cell.attack.name == "replay")
    if not cells:
        raise ConfigError("the plan is empty: " + ("; ".join(skipped) or "no attack is named"))
    for one in config.expect if not config.narrowed else ():
        if not any(one.applies(c.info.model, c.info.defense, c.info.attack, c.info.threat) for c in cells.values()):
            raise ConfigError(
                f"{one!r} applies to no cell of the plan: it would never be checked; correct or remove it"
            )
    return Plan(tuple(ordered), tuple(dict.fromkeys(skipped)))


def data_name(ref: DataRef, *, full: bool = False) -> str:
    """How data is called in tables: the registered name or the file's name, with the preprocessing (`full`: the spec, with its
    path), and the selection."""
    name = ref.spec if full else data_title(ref.spec)
    return f"{name}[{ref.samples}]" if ref.samples else name


def model_name(ref: ModelRef, *, full: bool = False) -> str:
    """How a model is called in tables: the registered name, `file.factory`, or `source:name`, with its weights' name where given.

    `full` has the paths as they were written, and the normalisation.
    """
    name, weights = ref.spec, ref.weights
    if not full:
        weights = Path(weights).stem if weights else None
        place, colon, factory = ref.spec.rpartition(":")
        source = parse_source(ref.spec)
        if source is not None:
            name = source.title
        elif colon:
            name = f"{Path(place).stem if place.endswith('.py') else place}.{factory}"
    if weights:
        name += f"@{weights}"
    if full and (ref.mean or ref.std):
        name += f" mean={ref.mean} std={ref.std}"
    return name


def _names(refs: Iterable[R], name: Callable[..., str]) -> dict[R, str]:
    """Names in tables that differ where what they name does: a row must not join two models."""
    short = {ref: name(ref) for ref in refs}
    times = Counter(short.values())
    return {ref: text if times[text] == 1 else name(ref, full=True) for ref, text in short.items()}


def _models(group: Group, norm: Norm) -> Iterator[ModelRef]:
    for ref in group.models:
        if ref.spec not in MODELS and parse_source(ref.spec) is not None:
            yield replace(ref, spec=complete_robustbench_name(ref.spec, group.data.spec, norm))
            continue
        if ":" in ref.spec:
            yield ref
            continue
        if ref.spec.endswith(".py") or "/" in ref.spec:
            raise ConfigError(f"model {ref.spec!r} names a file only: add the function that builds it, {ref.spec}:NAME")
        for name in MODELS.expand(ref.spec):
            yield ModelRef(name, ref.weights, ref.mean, ref.std)


def _members(group: Group, norm: Norm, skipped: list[str]) -> Iterator[tuple[str, Member]]:
    for text in group.attacks:
        if text in SUITES:
            found = suite_members(text, norm)
            if not found:
                skipped.append(f"suite {text!r} has no attack for {norm}")
            yield from ((text, member) for member in found)
            continue
        named = parse_named(text)
        for name in ATTACKS.expand(named.name):
            entry: AttackEntry = ATTACKS.get(name)
            if norm not in entry.card.norms:
                skipped.append(f"attack {name!r} is for {', '.join(entry.card.norms)}, not for {norm}")
                continue
            spec = str(Named(name, named.settings))
            yield "custom", Member(spec, spec)


_WITHOUT_GRADIENTS = ("square", "hop_skip_jump")
"""What a suite of attacks that take gradients comes down to where none are to be had."""
_TAKING_GRADIENTS = ("white-box", "naive", "certificate")


def _allowed(
    members: list[tuple[str, Member]], model: ModelRef, name: str, norm: Norm, skipped: list[str]
) -> Iterator[tuple[str, Member]]:
    """The attacks that can be run on a model: of a black box those that take no gradients."""
    source = parse_source(model.spec) if model.spec not in MODELS else None
    if source is None or source.access == "white-box":
        yield from members
        return
    seen = {"scores": "outputs", "labels": "predicted classes"}[source.access]
    left = [one for one in _WITHOUT_GRADIENTS if norm in ATTACKS.get(one).card.norms]
    taking = {member for _, member in members if _kind(member) in _TAKING_GRADIENTS}
    for suite in dict.fromkeys(suite for suite, _ in members):
        own = [member for one, member in members if one == suite]
        if suite == "custom":
            skipped += [
                f"attack {member.label!r} on {name}: it takes gradients, and only the {seen} can be seen; use "
                f"{' or '.join(left)}"
                for member in own
                if member in taking
            ]
            own = [member for member in own if member not in taking]
        elif taking & set(own):
            skipped.append(f"suite {suite!r} on {name} but for {' and '.join(left)}: only the {seen} can be seen")
            own = [Member(one, one) for one in left]
        yield from ((suite, member) for member in own)


def _kind(member: Member) -> str:
    return ATTACKS.get(parse_named(member.spec).name).card.kind


def _guard(text: str, extra: Registry[DefenseEntry] | None) -> DefenseEntry:
    """The entry of a defense, whose settings are tried."""
    defense = parse_named(text)
    found = extra.get(defense.name) if extra is not None and defense.name in extra else DEFENSES.get(defense.name)
    found.make(**defense.keywords)
    return found


def _data(group: Group, guard: DefenseEntry) -> DataRef:
    """The group's data; of a defense that takes long its first few samples, unless the group says how many."""
    few = guard.card.samples
    return group.data if few is None or group.data.samples is not None else replace(group.data, samples=str(few))


def _applies(member: Member, guard: DefenseEntry, norm: Norm) -> bool:
    """A certificate is planned where one may be computed."""
    entry = ATTACKS.get(parse_named(member.spec).name)
    return entry.card.kind != "certificate" or norm in guard.card.certificates


def _cell(
    data: DataRef,
    model: ModelRef,
    names: tuple[str, str],
    defense: Named,
    guard: DefenseEntry,
    member: Member,
    suite: str,
    threat: ThreatModel,
    seed: int,
) -> Cell:
    attack = parse_named(member.spec)
    entry = ATTACKS.get(attack.name)
    built = entry.make(threat, **attack.keywords)
    info = CellInfo(
        model=names[0],
        defense=str(defense),
        attack=member.label,
        attack_spec=attack_told(attack, entry, built),
        attack_kind=entry.card.kind,
        norm=threat.norm,
        eps=threat.eps,
        threat=str(threat),
        suite=suite,
        data=names[1],
        seed=seed,
        minimum_norm=entry.card.minimum_norm,
        randomised=guard.card.randomised,
    )
    return Cell(info, model, defense, attack, threat, data)
