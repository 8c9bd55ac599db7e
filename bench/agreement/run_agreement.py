"""Running an attack of each installed library at the same budget, with the plan, engine and store of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gauntlet.attacks.adapters.library_catalog import MODULES
from gauntlet.attacks.adapters.run_library import library
from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.agreement.comparisons import AGREEMENTS
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.files import texts
from gauntlet.bench.config.schema import Config, ConfigError, load_config
from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.planning.plan import Plan, make_plan
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.speed.comparisons import Comparison, choose_comparisons
from gauntlet.leaderboard.compare.library_agreement import (
    AgreementResults,
    LibraryAgreement,
    Member,
    library_agreement,
)
from gauntlet.leaderboard.report.formatting import with_interval
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import CellResult

Log = Callable[[str], None]
OWN = "gauntlet"
"""The library of Gauntlet's own attacks."""
GIVEN = "as given"
"""The name of the comparison of attacks that are named by hand."""


def agreement_config(options: Mapping[str, Any]) -> Config:
    """The configuration: float32 and no checks, unless options choose otherwise, since the attacks are compared, not the models.

    Raises ConfigError.
    """
    given = {**options, "precision": options.get("precision") or "float32", "checks": options.get("checks") or "none"}
    # Any attack: which ones are run, the comparisons say.
    return load_config({**given, "attacks": ("fgsm",)}, folder=Path.cwd(), file=options.get("config"))


def choose_rows(patterns: Sequence[str], attacks: Sequence[str], threats: Sequence[str]) -> tuple[Comparison, ...]:
    """The comparisons of the threat models' norms whose names fit a pattern; of `attacks`, if there are any, one for each norm.

    The first attack is the reference. Raises ValueError for a pattern that fits none, for both patterns and attacks, and for a
    single attack.
    """
    norms = tuple(norm for norm in NORMS if norm in {ThreatModel.parse(text).norm for text in threats})
    attacks = texts(tuple(attacks), "attacks") if attacks else ()
    if attacks and patterns:
        raise ValueError(f"--attacks names what is compared, so leave out the rows {', '.join(patterns)}")
    if attacks:
        if len(set(attacks)) < 2:
            raise ValueError(f"--attacks {attacks[0]} names one attack: name at least two, the reference first")
        return tuple(Comparison(GIVEN, norm, attacks[0], tuple(attacks[1:]), (0, 0)) for norm in norms)
    rows = choose_comparisons(tuple(patterns), AGREEMENTS)
    chosen = tuple(row for row in rows if row.norm in norms)
    if not chosen:
        have = ", ".join(dict.fromkeys(row.norm for row in rows)) or "none"
        raise ValueError(
            f"no row is for {', '.join(threats)}: they are for {have}; name such a threat model by --threat"
        )
    return chosen


def run_agreement(
    config: Config, rows: Sequence[Comparison], seeds: int, log: Log
) -> tuple[AgreementResults, RunContext]:
    """Run what the store does not hold of all comparisons; returns them, and the facts of the run.

    `log` is called with a line for each cell.
    `seeds`: 1 or 2; with 2 each attack is also compared with itself under the next seed. Raises ConfigError, ValueError and
    LookupError for names and settings that are wrong, and where nothing is left to compare.
    """
    load_plugins(config.plugins)
    threats = dict.fromkeys(str(ThreatModel.parse(text)) for group in config.groups for text in group.threats)
    left_out: list[str] = []
    planned = [
        (row, threat, members)
        for row in rows
        for threat in threats
        if row.norm == ThreatModel.parse(threat).norm and (members := _installed(row, left_out))
    ]
    left_out = list(dict.fromkeys(left_out))
    for sentence in left_out:
        log(sentence)
    if not planned:
        raise ValueError(f"nothing is left to compare: {'; '.join(left_out) or 'no row fits the threat models'}")
    plan = _plan(config, planned, seeds)
    engine = Engine(plan, config)
    results: dict[tuple[str, int], CellResult] = {}
    for number, cell in enumerate(plan.cells, 1):
        result = results[cell.name, cell.info.seed] = engine.cell(cell)
        log(f"[{number}/{len(plan.cells)}] {_progress(cell, result)}")
    together, single = [], []
    for row, threat, specs in planned:
        found = [
            [cell for cell in plan.cells if (cell.info.attack, cell.info.threat) == (spec, threat)] for spec in specs
        ]
        together.append(_compare(row, threat, specs, found, results, config.seed))
        pipelines = dict.fromkeys(_pipeline(cell) for members in found for cell in members)
        if len(pipelines) > 1:
            for pipeline in pipelines:
                own = [[cell for cell in members if _pipeline(cell) == pipeline] for members in found]
                single.append(_compare(row, threat, specs, own, results, config.seed))
    return AgreementResults(tuple(together), tuple(single), tuple(left_out)), engine.run.context


def _installed(row: Comparison, left_out: list[str]) -> list[str]:
    """The attacks of a comparison whose libraries are installed and that exist for its norm; none if fewer than two are left."""
    found = []
    for spec in (row.ours, *row.peers):
        named = parse_named(spec)
        card = ATTACKS.get(named.name).card
        if row.norm not in card.norms:
            left_out.append(f"{named.name} is left out in {row.norm}: it is for {', '.join(card.norms)}")
        elif card.library and (why := _unusable(card.library)):
            left_out.append(f"the attacks of {card.library} are left out: {why}")
        else:
            found.append(str(named))
    if len(set(found)) < 2:
        left_out.append(f"{row.name} in {row.norm} is left out: fewer than two attacks are left to compare")
        return []
    return found


@cache
def _unusable(distribution: str) -> str:
    """Why a library cannot be used; empty where it can. It is then imported, which would else be timed with its first attack."""
    if package_version(distribution) == "absent":
        return f"it is not installed (pip install {distribution})"
    try:
        for module in MODULES.get(distribution, ()):
            library(module, distribution)
    except ImportError as error:
        return str(error)
    return ""


def _plan(config: Config, planned: Sequence[tuple[Comparison, str, list[str]]], seeds: int) -> Plan:
    """The cells of all comparisons and seeds, each once; those of a pipeline follow one another."""
    groups = []
    for group in config.groups:
        own = [str(ThreatModel.parse(text)) for text in group.threats]
        for threat in dict.fromkeys(own):
            specs = dict.fromkeys(spec for _, other, members in planned if other == threat for spec in members)
            if specs:
                groups.append(replace(group, attacks=tuple(specs), threats=(threat,)))
    found: dict[tuple[str, int], Cell] = {}
    for seed in range(config.seed, config.seed + seeds):
        made = make_plan(replace(config, groups=tuple(groups), seed=seed, expect=()))
        for cell in made.cells:
            if cell.info.role != "attack":
                raise ConfigError(f"--attacks {cell.info.attack}: this is no attack, and has no examples to compare")
            found.setdefault((cell.name, seed), cell)
    return Plan(tuple(found.values()))


def _compare(
    row: Comparison,
    threat: str,
    specs: Sequence[str],
    found: Sequence[Sequence[Cell]],
    results: Mapping[tuple[str, int], CellResult],
    seed: int,
) -> LibraryAgreement:
    members = []
    for spec, members_cells in zip(specs, found, strict=True):
        own = [(cell.info.seed, results[cell.name, cell.info.seed]) for cell in members_cells]
        members.append(
            Member(
                _library(spec),
                spec,
                [result for one, result in own if one == seed],
                [result for one, result in own if one != seed],
            )
        )
    return library_agreement(row.name, threat, members)


def _library(spec: str) -> str:
    """`torchattacks` of `torchattacks.PGD`; Gauntlet's own attacks belong to it, and a user's without a dot to themselves."""
    name = parse_named(spec).name
    prefix, dot, _ = name.partition(".")
    return prefix if dot or ATTACKS.get(name).source_digest else OWN


def _pipeline(cell: Cell) -> tuple[str, str, str]:
    return cell.info.model, cell.info.defense, cell.info.data


def _progress(cell: Cell, result: CellResult) -> str:
    name = visible(f"{cell.info.title} {cell.info.threat}, seed {cell.info.seed}")
    if result.error is not None:
        return f"{name}: ERROR {visible(result.error.message)}"
    stored = " (stored)" if all(block.cached for block in result.blocks) else ""
    robust = with_interval(cells.robust_accuracy(result))
    return f"{name}: robust {robust} %, {cells.costs(result).seconds:.1f} s{stored}"
