"""The section of the Markdown report on published figures."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.references import Reference

READING = (
    "Published figures were measured by others, under their attacks and on their samples, and take no part in ranks. The "
    "difference is measured minus published, in points. Covered means that the published figure lies in the 95 % interval of "
    "the measured one, which covers the choice of samples only. A robust accuracy measured below the published one comes from "
    "a stronger attack or from another model."
)
_HEADER = "| published: model | figure | by | n | published % | measured % [95 %] | on | n | difference | covered |"
_RULE = "|:--|:--|:--|--:|--:|--:|:--|--:|--:|:--|"


def published_section(references: Sequence[Reference]) -> str:
    """A table of the published figures beside the measured ones; empty if there are none."""
    if not references:
        return ""
    table = "\n".join([_HEADER, _RULE, *map(_line, references)])
    published = [reference.published for reference in references]
    sources = dict.fromkeys(f"{figure.model}: {figure.source}" for figure in published if figure.source)
    return "\n\n".join(
        ["## Published and measured", table, READING, "\n".join(f"- {safe(source)}" for source in sources)]
    )


def _line(reference: Reference) -> str:
    row, published, measured = reference.row, reference.published, reference.measured
    low, high = measured.interval
    cells = [
        safe(f"{row.model} ({published.model})" if published.model != row.model else published.model),
        f"robust, {row.threat}" if reference.figure == "robust" else reference.figure,
        safe(reference.attack),
        f"{published.n:,}" if published.n else "–",
        f"{100 * reference.stated:.1f}",
        f"{100 * measured.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        safe(row.data),
        f"{measured.n:,}",
        f"{100 * reference.difference:+.1f}",
        "yes" if reference.covered else "**no**",
    ]
    return f"| {' | '.join(cells)} |"
