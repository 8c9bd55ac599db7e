"""Running every check on a model with a defense: can its robust accuracy be trusted?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.checks.catalog import CHECKS, Check, run_check
from gauntlet.bench.checks.subject import Finding, Subject
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.schema import Config, DataRef, Group, ModelRef
from gauntlet.bench.executors.executable import Prepared
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.registries import ATTACKS, executable_entry
from gauntlet.bench.run.engine import Engine
from gauntlet.defenses.pipeline import profile as profiles
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult, Flag
from gauntlet.leaderboard.rows.answered import answers
from gauntlet.leaderboard.rows.evidence import TESTS
from gauntlet.leaderboard.rows.worst_case import worst_case

NAIVE, SINGLE_STEP = "naive", "fgsm"
SMALLER = 0.5
"""The attack is also run at this share of eps: samples that are robust at eps must be robust there."""
Log = Callable[[str], None]
"""Called with a line of text."""


class DiagnosisError(RuntimeError):
    """The diagnosed attack failed; the message says why."""


@dataclass(frozen=True)
class DiagnosisRequest:
    """A model, defense, data set and attack to diagnose. `out`: folder that keeps the results; None discards them."""

    model: ModelRef
    defense: str
    data: DataRef
    threat: ThreatModel
    attack: str = "adaptive"
    seed: int = 0
    device: str = "auto"
    out: Path | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The results of a diagnosis."""

    request: DiagnosisRequest
    card: DefenseCard
    profile: profiles.PipelineProfile
    row: tuple[CellResult, ...]
    """Results at eps: the naive attack, the single-step attack, and the diagnosed attack last."""
    smaller: tuple[CellResult, ...]
    """The diagnosed attack at the smaller eps."""
    twin: tuple[CellResult, ...]
    """The attack on the undefended model; empty if there is no defense."""
    findings: tuple[tuple[Check, Finding], ...]
    n: int
    failed: tuple[str, ...] = ()
    """A sentence for each accompanying attack that failed."""

    @property
    def attacked(self) -> CellResult:
        """The result of the diagnosed attack."""
        return self.row[-1]

    @property
    def naive(self) -> CellResult | None:
        """The result of the naive attack; None if it does not support the norm."""
        return next((result for result in self.row if result.cell.naive), None)

    @property
    def answered(self) -> frozenset[str]:
        """What answers flags: techniques that every sample that stands at eps has faced, and evidence.

        A test that the diagnosed attack fails stands, although another attack, or the same on fewer samples, has passed it.
        """
        failed = {check.name for check, finding in self.findings if finding.flag is not None and check.name in TESTS}
        return answers(self.row, worst_case(self.row)).needs - failed

    @property
    def standing(self) -> tuple[Flag, ...]:
        """The blocking flags that no technique has answered."""
        own = [finding.flag for _, finding in self.findings if finding.flag is not None]
        recorded = [flag for result in self.row for flag in cells.flags(result)]
        named = {flag.name: flag for flag in (*recorded, *own)}
        return tuple(flag for flag in named.values() if flag.stands(self.answered))


def diagnose(request: DiagnosisRequest, log: Log = lambda line: None) -> Diagnosis:
    """Attack the model with and without its defense, and at a smaller eps, and run every check.

    `log` is called with a line before each attack and check. Raises ValueError or LookupError for an invalid request, and
    DiagnosisError if the diagnosed attack fails. Failures of accompanying attacks are listed in the result.
    """
    if request.out is not None:
        return _diagnose(request, request.out, log)
    with TemporaryDirectory(prefix="gauntlet-") as scratch:
        return _diagnose(request, Path(scratch), log)


def _diagnose(request: DiagnosisRequest, out: Path, log: Log) -> Diagnosis:
    card = executable_entry(parse_named(request.attack).name).card
    if not card.searches:
        raise ValueError(
            f"attack {request.attack!r} is a {card.kind}: name an attack that searches for examples, such as adaptive"
        )
    norm = request.threat.norm
    accompanying = [
        name for name in (NAIVE, SINGLE_STEP) if norm in ATTACKS.get(name).card.norms and name != request.attack
    ]
    attack = str(parse_named(request.attack))
    attacks = (*accompanying, attack)
    half = replace(request.threat, eps=SMALLER * request.threat.eps)
    groups = [
        _group(request, request.defense, attacks, request.threat),
        _group(request, request.defense, (attack,), half),
    ]
    defended = parse_named(request.defense).name != "none"
    if defended:
        groups.append(_group(request, "none", (attack,), request.threat))
    config = Config(tuple(groups), seed=request.seed, device=request.device, out=out)
    engine = Engine(make_plan(config), config)
    results = [(cell, _result(engine, cell, log)) for cell in engine.run.plan.cells]
    with_defense = [pair for pair in results if pair[0].defense == parse_named(request.defense)]
    at_eps = [pair for pair in with_defense if pair[0].threat == request.threat]
    # The diagnosed attack comes last.
    at_eps.sort(key=lambda pair: pair[0].info.attack == attack)
    error = at_eps[-1][1].error
    if error is not None:
        raise DiagnosisError(f"{error.cell.title} failed: {error.kind}: {error.message}")
    prepared = engine.workbench.prepare(at_eps[-1][0])
    row = tuple(result for _, result in at_eps if result.error is None)
    smaller = tuple(result for cell, result in with_defense if cell.threat == half and result.error is None)
    twin = tuple(result for cell, result in results if cell.defense.name != prepared.card.name and result.error is None)
    subject = _subject(prepared, request, row, smaller, engine)
    findings = []
    for check in CHECKS:
        log(f"check {check.name}")
        findings.append((check, run_check(check, subject)))
    few = subject.few(16)
    return Diagnosis(
        request=request,
        card=prepared.card,
        profile=profiles.pipeline_profile(prepared.defended, few.images, few.labels),
        row=row,
        smaller=smaller,
        twin=twin,
        failed=tuple(f"{one.error.cell.title}: {one.error.message}" for _, one in results if one.error is not None),
        findings=tuple(findings),
        n=len(subject.labels),
    )


def _group(request: DiagnosisRequest, defense: str, attacks: tuple[str, ...], threat: ThreatModel) -> Group:
    # Brackets tell an attack from a suite of the same name.
    named = tuple(text if text.endswith(")") else f"{text}()" for text in attacks)
    return Group((request.model,), (defense,), named, (str(threat),), request.data)


def _result(engine: Engine, cell: Cell, log: Log) -> CellResult:
    title = engine.run.plan.title(cell)
    log(f"attack {title}")
    engine.cell(cell)
    return engine.run.result(cell, adversarial=True)


def _subject(
    prepared: Prepared,
    request: DiagnosisRequest,
    row: tuple[CellResult, ...],
    smaller: tuple[CellResult, ...],
    engine: Engine,
) -> Subject:
    device, data = engine.settings.device, prepared.data
    return Subject(
        pipeline=prepared.defended,
        images=data.images[:].to(device),
        labels=data.labels.to(device),
        ids=list(data.ids),
        threat=request.threat,
        card=prepared.card,
        seed=request.seed,
        attack=prepared.attack,
        victim=prepared.victim,
        views=prepared.views,
        row=row,
        siblings=smaller,
    )
