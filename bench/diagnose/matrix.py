"""The matrix of docs/checks.md: every check on undefended models, registered defenses and hidden gradient masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.catalog import CHECKS
from gauntlet.bench.checks.hidden_masks import MASKS
from gauntlet.bench.checks.subject import FEW_SLOW
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.diagnose.diagnose import NAIVE, Diagnosis, DiagnosisRequest, Log, diagnose
from gauntlet.bench.registries import DEFENSES, MODELS
from gauntlet.leaderboard.report.formatting import percent
from gauntlet.leaderboard.results import cell_summary as cells

UNDEFENDED = "cnn.standard_digits"
LEGEND = (
    "· passed; **B** fired, blocks the rank; a: fired, answered by the adaptive attack; w: warns; r: reports a figure; n: passed "
    "with the adaptive attack, fired with the naive attack; empty: does not apply"
)


@dataclass(frozen=True)
class MatrixPair:
    """A model and a defense: a row of the matrix."""

    title: str
    model: str
    defense: str = "none"


def pairs() -> list[MatrixPair]:
    """Undefended models, then a model with every registered defense, then a model with every hidden mask."""
    honest = [MatrixPair(name, name) for name in MODELS.expand("cnn.*_digits")]
    declared = [MatrixPair(f"× {name}", UNDEFENDED, name) for name in DEFENSES.expand("*") if name != "none"]
    hidden = [MatrixPair(f"hidden {name}", f"gauntlet.bench.checks.hidden_masks:{name}") for name in MASKS]
    return [*honest, *declared, *hidden]


def matrix(samples: str, threat: str, seed: int, device: str, out: Path, log: Log) -> Iterator[str]:
    """The lines of the table, each as soon as its row is finished. The folder `out` keeps results, so that a run can resume.

    `samples`: the selection of digits; slow defenses use the first eight.
    """
    yield LEGEND + "."
    yield ""
    for number, check in enumerate(CHECKS, 1):
        yield f"{number}. {check.name}: {check.rule} ({check.source})"
    yield ""
    yield f"| pair | clean | naive | adaptive | {' | '.join(str(number) for number in range(1, len(CHECKS) + 1))} |"
    yield "|" + " --- |" * (4 + len(CHECKS))
    for pair in pairs():
        log(pair.title)
        slow = DEFENSES.get(pair.defense).card.samples is not None
        request = DiagnosisRequest(
            ModelRef(pair.model),
            pair.defense,
            DataRef("digits", str(FEW_SLOW) if slow else samples),
            ThreatModel.parse(threat),
            seed=seed,
            device=device,
            out=out,
        )
        yield _row(pair.title, diagnose(request), diagnose(replace(request, attack=NAIVE)))


def _row(title: str, adaptive: Diagnosis, naive: Diagnosis) -> str:
    fooled = {finding.check for _, finding in naive.findings if finding.flag is not None}
    marks = []
    for _, finding in adaptive.findings:
        mark = {"passed": "·", "reported": "r", "not applicable": "", "fired": ""}[finding.result]
        if finding.flag is not None:
            blocks = finding.flag.severity == "block"
            mark = "w" if not blocks else "**B**" if finding.flag.stands(adaptive.answered) else "a"
        elif finding.check in fooled:
            mark = "n"
        marks.append(mark)
    figures = [
        percent(cells.clean_accuracy(adaptive.attacked)),
        percent(cells.robust_accuracy(naive.attacked)),
        percent(cells.robust_accuracy(adaptive.attacked)),
    ]
    return f"| {' | '.join([title, *figures, *marks])} |"
