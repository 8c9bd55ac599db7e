"""What RobustBench asks for in an issue: its text for an external evaluation or a new model, and the file of `model_info`.

The questions are those of its templates (github.com/RobustBench/robustbench, folder .github/ISSUE_TEMPLATE). What stored results
do not tell is marked `FILL IN`.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

Kind = Literal["external", "new"]
FILL_IN: Final = "FILL IN"
PREFIX: Final = "robustbench:"
_AUTOATTACK: Final = ("autoattack", "pyautoattack.AutoAttack")
"""Labels of the standard version: with settings in brackets it is another attack."""
_NO_DATA: Final = ("", "none", "no", "–")


def issue_text(
    row: LeaderboardRow, kind: Kind, about: ModelDescription, digest: str, settings: tuple[str, ...], version: str
) -> str:
    """The text of an issue on a finished row.

    `digest`: sha256 of the file of images. `settings`: those of the row's attacks. `version`: Gauntlet's.
    """
    return (_external if kind == "external" else _new)(row, about, digest, settings, version)


def model_info(row: LeaderboardRow, kind: Kind, about: ModelDescription) -> dict[str, Any]:
    """The fields of a file of `model_info`; accuracies are in percent, as text with two decimals."""
    eps = row.threat.partition(":")[2]
    fields: dict[str, Any] = {
        "link": about.link or FILL_IN,
        "name": about.paper or FILL_IN,
        "authors": FILL_IN,
        "additional_data": about.extra_data.lower() not in _NO_DATA,
        "number_forward_passes": 1,
        "dataset": row.data.partition("[")[0],
        "venue": FILL_IN,
        "architecture": about.architecture or FILL_IN,
        "eps": eps,
        "clean_acc": _percent(row.clean),
        "reported": _percent(row.robust),
    }
    found = [entry for label, entry in row.attacks.items() if label in _AUTOATTACK and isinstance(entry, Proportion)]
    if found:
        fields["autoattack_acc"] = _percent(min(found, key=lambda entry: entry.estimate))
    if kind == "external":
        fields["external"] = _percent(row.robust)
    fields["unreliable"] = any(flag.severity == "block" and not flag.lifted_by for flag in row.flags)
    return fields


def _external(
    row: LeaderboardRow, about: ModelDescription, digest: str, settings: tuple[str, ...], version: str
) -> str:
    return f"""## Target model
+ **Model identifier(s):** {safe(row.model.removeprefix(PREFIX).rpartition("/")[2])}
+ **Leaderboard(s):** {safe(_leaderboard(row))}

## New evaluation
+ **Link to adversarial images:** {FILL_IN}: the address of `examples.pt`, {row.robust.n} images in the order of the data (sha256
  {digest})
+ **Robust accuracy:** {_percent(row.robust)} % of {row.robust.n} images ({_interval(row.robust)}); clean {_percent(row.clean)} %
+ **Author(s):** {FILL_IN}
+ **Description of the method used:** {_method(row, settings, version)}
"""


def _new(row: LeaderboardRow, about: ModelDescription, digest: str, settings: tuple[str, ...], version: str) -> str:
    norm, _, eps = row.threat.partition(":")
    extra = "true" if about.extra_data.lower() not in _NO_DATA else "false"
    return f"""# Paper Information

- **Paper Title**: {safe(about.paper) or FILL_IN}
- **Paper URL**: {safe(about.link) or FILL_IN}
- **Paper authors**: {FILL_IN}

# Leaderboard Claim(s)

## Model 1: {safe(about.name or row.model)}

- **Architecture**: {safe(about.architecture) or FILL_IN}
- **Dataset**: {safe(row.data)}
- **Threat Model**: {norm}
- **eps**: {safe(eps)}
- **Clean accuracy**: {_percent(row.clean)} % of {row.clean.n} images
- **Robust accuracy**: {_percent(row.robust)} % of {row.robust.n} images ({_interval(row.robust)})
- **Additional data**: {extra}
- **Evaluation method**: {_method(row, settings, version)}
- **Checkpoint and code**: {FILL_IN}; adversarial images `examples.pt` (sha256 {digest})

# Model Zoo

- [ ] I want to add my models to the Model Zoo
- [ ] I use an architecture that is not among those of the Model Zoo
- [ ] I agree to release my model(s) under MIT license, or under this one: {safe(about.licence) or FILL_IN}
"""


def _leaderboard(row: LeaderboardRow) -> str:
    norm, _, eps = row.threat.partition(":")
    return f"{row.data.partition('[')[0]}, {norm}, eps {eps}"


def _method(row: LeaderboardRow, settings: tuple[str, ...], version: str) -> str:
    attacks = "; ".join(safe(one) for one in settings)
    return (
        f"Gauntlet {version}, suite {safe(row.suite)}, worst case over {attacks}. Every example was verified on the model "
        "in float32: inside [0, 1], within eps, misclassified."
    )


def _percent(share: Proportion) -> str:
    return f"{100 * share.estimate:.2f}"


def _interval(share: Proportion) -> str:
    low, high = share.interval
    return f"95 %: {100 * low:.2f} to {100 * high:.2f}"
