"""The plan: from the configuration to an ordered list of cells, whose names are looked up in the registries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.registry.settings import Named, parse_named
from gauntlet.attacks.registry.suites import SUITES, Member, suite_members
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.model_ref import MODEL_SETTINGS, given_settings
from gauntlet.bench.config.schema import Config, ConfigError, DataRef, Group, ModelRef
from gauntlet.bench.data.data_name import data_title
from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.executors.entry import ExecutableEntry
from gauntlet.bench.models.parts.class_list import class_file
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.planning.target_class import check_target
from gauntlet.bench.registries import ATTACKS, DEFENSES, MODELS, executable_entry, expand_executables
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.bench.registry.registry import Registry
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.leaderboard.results.record import CellInfo

R = TypeVar("R", ModelRef, DataRef)

MOST_CELLS: Final = 100_000
"""Largest number of cells of a plan: a file of a few lines can ask for more than anybody could wait for."""


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
    """The plan of a configuration, resolved in this process; see `resolve_plan`."""
    return resolve_plan(PlanRequest.of(config), extra)


def resolve_plan(request: PlanRequest, extra: Registry[DefenseEntry] | None = None) -> Plan:
    """All cells that are asked for, each once in a suite; `extra` has defenses beside the registered ones.

    Loads the plugins, whose code runs in this process. Raises ConfigError, ValueError and LookupError for names and settings,
    PluginError for a plugin.
    """
    _bounded(
        sum(
            len(group.models) * len(group.defenses) * len(group.attacks) * len(group.threats)
            for group in request.groups
        )
    )
    load_plugins(request.plugins)
    cells: dict[tuple[str, str], Cell] = {}
    skipped: list[str] = []
    norms = [(group, ThreatModel.parse(text).norm) for group in request.groups for text in group.threats]
    models = _names((ref for group, norm in norms for ref in _models(group, norm)), model_name)
    guards = {text: _guard(text, extra) for group in request.groups for text in group.defenses}
    data = _names((_data(group, guards[text]) for group in request.groups for text in group.defenses), data_name)
    for group in request.groups:
        for text in group.threats:
            threat = ThreatModel.parse(text)
            members = list(_members(group, threat.norm, skipped))
            for model in _models(group, threat.norm):
                allowed = list(_allowed(members, model, models[model], threat.norm, skipped))
                for defense in group.defenses:
                    guard, ref = guards[defense], _data(group, guards[defense])
                    check_target(threat, model, ref)
                    for suite, member in allowed:
                        if not _entry(member).applies(guard.card, threat.norm):
                            continue
                        names = models[model], data[ref]
                        cell = _cell(
                            ref, model, names, parse_named(defense), guard, member, suite, threat, request.seed
                        )
                        cells.setdefault((cell.name, suite), cell)
                        _bounded(len(cells))
    skipped += [*MODELS.problems, *ATTACKS.problems]
    # Replays come last: they try the examples of the other cells.
    ordered = sorted(cells.values(), key=lambda cell: cell.info.replays)
    if not cells:
        raise ConfigError("the plan is empty: " + ("; ".join(skipped) or "no attack is named"))
    for expectation in request.expect:
        infos = [cell.info for cell in cells.values()]
        if not any(expectation.applies(info.model, info.defense, info.attack, info.threat) for info in infos):
            raise ConfigError(
                f"{expectation!r} applies to no cell of the plan: it would never be checked; correct or remove it"
            )
    return Plan(tuple(ordered), tuple(dict.fromkeys(skipped)))


def _bounded(count: int) -> None:
    """Raise ConfigError if a plan may not have so many cells."""
    if count > MOST_CELLS:
        raise ConfigError(
            f"the configuration asks for {count} cells or more, and a plan has at most {MOST_CELLS}: name fewer models, "
            "defenses, attacks or threat models, or divide it into several runs"
        )


Detail = Literal["short", "normalised", "full"]
"""How much a name in tables says: what is short, also the normalisation, or everything as it was written."""
_DETAILS: tuple[Detail, ...] = get_args(Detail)


def data_name(ref: DataRef, detail: Detail = "short") -> str:
    """How data is called in tables: the registered name or the file's name, with the preprocessing (`full`: the spec, with its
    path), and the selection."""
    name = ref.spec if detail == "full" else data_title(ref.spec)
    return f"{name}[{ref.samples}]" if ref.samples else name


def model_name(ref: ModelRef, detail: Detail = "short") -> str:
    """How a model is called in tables: the registered name, `file.factory`, or `source:name`, with its weights' name where given.

    `normalised` has the mean, std and other settings that were given, `full` also the paths as they were written.
    """
    name, weights = ref.spec, ref.weights
    if detail != "full":
        weights = Path(weights).stem if weights else None
        place, colon, factory = ref.spec.rpartition(":")
        source = parse_source(ref.spec)
        if source is not None:
            name = source.title
        elif colon:
            name = f"{Path(place).stem if place.endswith('.py') else place}.{factory}"
    if weights:
        name += f"@{weights}"
    if detail != "short" and (given := given_settings(ref)):
        name += f"[{', '.join(given)}]"
    return name


def _names(refs: Iterable[R], name: Callable[[R, Detail], str]) -> dict[R, str]:
    """Names in tables that differ where what they name does, each as short as that allows: a row must not join two models."""
    names: dict[R, str] = {}
    open_refs = list(dict.fromkeys(refs))
    for detail in _DETAILS:
        longer: dict[R, str] = {ref: name(ref, detail) for ref in open_refs}
        times = Counter([*names.values(), *longer.values()])
        names |= {ref: text for ref, text in longer.items() if times[text] == 1 or detail == "full"}
        open_refs = [ref for ref in open_refs if ref not in names]
    return names


def _models(group: Group, norm: Norm) -> Iterator[ModelRef]:
    for ref in group.models:
        if ref.spec not in MODELS and parse_source(ref.spec) is not None:
            yield replace(ref, spec=complete_robustbench_name(ref.spec, group.data.spec, norm))
            continue
        if ref.spec.endswith(")"):
            unknown = ", ".join(parse_named(ref.spec).keywords)
            raise ConfigError(f"model {ref.spec!r} has no setting {unknown}: use {', '.join(MODEL_SETTINGS)}")
        if ":" in ref.spec:
            yield ref
            continue
        if ref.spec.endswith(".py") or "/" in ref.spec:
            raise ConfigError(f"model {ref.spec!r} names a file only: add the function that builds it, {ref.spec}:NAME")
        for name in MODELS.expand(ref.spec):
            yield replace(ref, spec=name)


def _members(group: Group, norm: Norm, skipped: list[str]) -> Iterator[tuple[str, Member]]:
    for text in group.attacks:
        if text in SUITES:
            found = suite_members(text, norm)
            if not found:
                skipped.append(f"suite {text!r} has no attack for {norm}")
            yield from ((text, member) for member in found)
            continue
        named = parse_named(text)
        for name in expand_executables(named.name):
            card = executable_entry(name).card
            if norm not in card.norms:
                skipped.append(f"attack {name!r} is for {', '.join(card.norms)}, not for {norm}")
                continue
            if card.library and package_version(card.library) == "absent":
                missing = (
                    f"attack {name!r} is one of {card.library}, which is not installed: pip install {card.library}"
                )
                if name == named.name:
                    raise ConfigError(missing)
                skipped.append(missing)
                continue
            spec = str(Named(name, named.settings))
            yield "custom", Member(spec, spec)


_WITHOUT_GRADIENTS = ("square", "hop_skip_jump")
"""What a suite of attacks that take gradients comes down to where none are to be had."""


def _allowed(
    members: list[tuple[str, Member]], model: ModelRef, name: str, norm: Norm, skipped: list[str]
) -> Iterator[tuple[str, Member]]:
    """The attacks that can be run on a model: of a black box those that take no gradients."""
    source = parse_source(model.spec) if model.spec not in MODELS else None
    if source is None or source.access == "white-box":
        yield from members
        return
    seen = {"scores": "outputs", "labels": "predicted classes"}[source.access]
    left = [name for name in _WITHOUT_GRADIENTS if norm in ATTACKS.get(name).card.norms]
    taking = {member for _, member in members if _entry(member).card.takes_gradients}
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


def _entry(member: Member) -> ExecutableEntry:
    return executable_entry(parse_named(member.spec).name)


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
    entry = executable_entry(attack.name)
    built = entry.make(threat, **attack.keywords)
    info = CellInfo(
        model=names[0],
        defense=str(defense),
        attack=member.label,
        attack_spec=built.spec,
        attack_kind=entry.card.kind,
        role=entry.card.role,
        severities=built.severities,
        norm=threat.norm,
        eps=threat.eps,
        threat=str(threat),
        suite=suite,
        data=names[1] if model.classes is None else f"{names[1]}[classes {Path(class_file(model.classes)[0]).stem}]",
        seed=seed,
        minimum_norm=entry.card.minimum_norm,
        randomised=guard.card.randomised or bool(model.randomised),
    )
    return Cell(info, model, defense, attack, threat, data)
