"""A diagnosis as a report in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gauntlet.bench.checks.catalog import Check
from gauntlet.bench.checks.subject import Finding
from gauntlet.bench.diagnose.diagnose import Diagnosis
from gauntlet.bench.environment.git_commit import commit
from gauntlet.bench.environment.provenance import versions
from gauntlet.leaderboard.report.formatting import NOTHING, with_interval
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import fenced, markdown
from gauntlet.leaderboard.results.record import CellResult

_MARK = {"passed": "passed", "fired": "**FIRED**", "reported": "reported", "not applicable": NOTHING}


def report(diagnosis: Diagnosis, command: str) -> str:
    """The whole report; `command` reproduces it."""
    request = diagnosis.request
    name = diagnosis.attacked.cell.model
    title = name if request.defense == "none" else f"{name} × {request.defense}"
    lines = [
        f"# Diagnosis of {markdown(title)} at {markdown(str(request.threat))}",
        "",
        f"**{verdict(diagnosis)}**",
        "",
        *_figures(diagnosis),
        "",
        *_pipeline(diagnosis),
        "",
        *_checks(diagnosis),
        "",
        *_next(diagnosis),
        "## Reproduce",
        "",
        fenced(command),
        "",
        f"Seed {request.seed}; {_versions()}.",
    ]
    return "\n".join(lines) + "\n"


def verdict(diagnosis: Diagnosis) -> str:
    """A sentence that says whether the robust accuracy can be trusted."""
    figure = with_interval(cells.robust_accuracy(diagnosis.attacked))
    measured = f"{figure} % of {diagnosis.n} samples under {markdown(diagnosis.attacked.cell.attack)}"
    standing = diagnosis.standing
    if standing:
        why = "; ".join(flag.name for flag in standing)
        return f"This number cannot be trusted: {measured}, because of {why}. See below what to do."
    lifted = [finding.check for _, finding in diagnosis.findings if finding.flag and finding.flag.severity == "block"]
    note = f" ({', '.join(lifted)} fired, and what answers it is there: techniques and evidence)" if lifted else ""
    return f"No check speaks against this number{note}: {measured}. It is an upper bound of the true robust accuracy."


def _figures(diagnosis: Diagnosis) -> Iterator[str]:
    clean = with_interval(cells.clean_accuracy(diagnosis.attacked))
    yield "## Figures"
    yield ""
    yield "| attack | accuracy in %, 95 % interval | techniques | forward/backward passes a sample | seconds |"
    yield "| --- | --- | --- | --- | --- |"
    yield f"| none (clean) | {clean} | | | |"
    for result in diagnosis.row:
        yield _line(markdown(result.cell.attack), result)
    for result in diagnosis.smaller:
        yield _line(f"{markdown(result.cell.attack)} at eps {result.cell.eps:g}", result)
    for result in diagnosis.twin:
        yield _line(f"{markdown(result.cell.attack)} on the model without the defense", result)
    yield ""
    yield f"n = {diagnosis.n}. Intervals are Clopper-Pearson and cover sampling only. Robust accuracies are upper bounds."
    for failure in diagnosis.failed:
        yield ""
        yield f"Not run: {markdown(failure)}"
    broken = _broken_by_stage(diagnosis.attacked)
    if broken:
        yield ""
        yield f"Samples broken by stage: {broken}."
    naive = diagnosis.naive
    if naive is not None:
        gap = cells.robust_accuracy(naive).estimate - cells.robust_accuracy(diagnosis.attacked).estimate
        yield ""
        yield f"The naive attack alone would overstate robust accuracy by {100 * gap:.1f} points."


def _line(attack: str, result: CellResult) -> str:
    cost = cells.costs(result)
    techniques = ", ".join(sorted(cells.techniques(result)))
    passes = f"{cost.forwards_per_sample:.1f}/{cost.backwards_per_sample:.1f}"
    return (
        f"| {attack} | {with_interval(cells.robust_accuracy(result))} | {techniques} | {passes} | {cost.seconds:.1f} |"
    )


def _broken_by_stage(result: CellResult) -> str:
    techniques = cells.stage_techniques(result)
    counts = Counter(stage for block in result.blocks for stage in block.samples.stage if stage)
    return ", ".join(
        f"{markdown(stage)} ({techniques.get(stage, '?')}) {counts[stage]}" for stage in techniques if counts[stage]
    )


def _pipeline(diagnosis: Diagnosis) -> Iterator[str]:
    card, profile = diagnosis.card, diagnosis.profile
    yield "## The pipeline"
    yield ""
    yield f"Defense: {markdown(diagnosis.request.defense)}, {markdown(card.summary)} ({markdown(card.source)})."
    yield ""
    yield "| | declared | measured |"
    yield "| --- | --- | --- |"
    yield f"| useful gradients | {_yes(card.differentiable)} | {profile.gradients} |"
    yield f"| randomised | {_yes(card.randomised)} | {_yes(profile.randomised)} |"
    yield f"| computes gradients at test time | {_yes(card.test_time_gradient)} | {_yes(profile.takes_gradients)} |"
    yield f"| may reject | {_yes(card.rejects)} | |"


def _checks(diagnosis: Diagnosis) -> Iterator[str]:
    yield "## Checks"
    yield ""
    yield "| check | outcome | finding | rule | source |"
    yield "| --- | --- | --- | --- | --- |"
    for check, finding in diagnosis.findings:
        state = _MARK[finding.result]
        if finding.flag is not None:
            state += f", {_standing(diagnosis, finding)}"
        entries = (check.name, state, markdown(finding.sentence), markdown(check.rule), markdown(check.source))
        yield f"| {' | '.join(entries)} |"


def _standing(diagnosis: Diagnosis, finding: Finding) -> str:
    flag = finding.flag
    assert flag is not None
    if flag.severity == "warn":
        return "warns"
    return "blocks" if flag.stands(diagnosis.answered) else "answered"


def _next(diagnosis: Diagnosis) -> Iterator[str]:
    fired: list[tuple[Check, Finding]] = [pair for pair in diagnosis.findings if pair[1].flag is not None]
    if not fired:
        return
    yield "## Checks that fired"
    yield ""
    for _, finding in fired:
        flag = finding.flag
        assert flag is not None
        yield f"- **{flag.name}** ({_standing(diagnosis, finding)}): {markdown(flag.message)}"
        if flag.needs:
            needed = [f"{name} ({'yes' if name in diagnosis.answered else 'no'})" for name in flag.needs]
            yield f"  What answers it, attack techniques and evidence: {', '.join(needed)}."
        if flag.evidence:
            yield f"  Figures: {', '.join(f'{name} {value:.4g}' for name, value in flag.evidence)}."
        if flag.samples:
            yield f"  Samples: {', '.join(markdown(sample) for sample in flag.samples)}."
    yield ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _versions() -> str:
    head, dirty = commit()
    installed = versions()
    names = [f"{name} {installed[name]}" for name in ("python", "robust-gauntlet", "torch")]
    return ", ".join([*names, *([f"commit {head[:12]}{' with changes' if dirty else ''}"] if head else [])])
