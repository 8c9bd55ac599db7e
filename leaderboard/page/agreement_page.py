"""The agreement of libraries as one HTML file, with the templates and the style of the leaderboard's page. It needs no script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gauntlet.leaderboard.compare.agreement_report import (
    HEADER,
    OVERVIEW,
    READING,
    entries,
    overview,
    pipeline_entry,
)
from gauntlet.leaderboard.compare.library_agreement import AgreementResults, LibraryAgreement
from gauntlet.leaderboard.page.assets import environment, policy, style
from gauntlet.leaderboard.report.markdown_writer import RunContext

MOST_SAMPLES: Final = 200
"""Number of samples that are listed for each comparison; the CSV has all."""


@dataclass(frozen=True)
class Section:
    """A comparison as the page shows it."""

    title: str
    entries: list[tuple[str, ...]]
    attacks: tuple[str, ...]
    differ: tuple[tuple[int | None, ...], ...]
    most: int
    """The largest number of the pairs, at least 1."""
    pipelines: list[tuple[str, list[str]]]
    samples: list[tuple[str, str, str, str]]
    """Pipeline, id, the attacks that broke it, and those that did not."""
    more: int
    """Number of samples that are not listed."""


def agreement_page(results: AgreementResults, context: RunContext) -> str:
    """The whole HTML file. Raises PageMissingError."""
    env = environment()
    from markupsafe import Markup

    return env.get_template(
        "agreement.html"
    ).render(
        policy=policy(),
        css=Markup(style()),  # noqa: S704
        subtitle=" · ".join(
            part for part in (context.data, ", ".join(context.threat_models), context.started[:10]) if part
        ),
        overview=overview(results),
        overview_note=OVERVIEW,
        header=HEADER,
        sections=[_section(results, one) for one in results.together],
        left_out=results.left_out,
        failures=results.failures,
        reading=READING,
        setup=[
            (name, value)
            for name, value in (
                ("data", context.data),
                ("device", context.device),
                ("seed", str(context.seed)),
                ("versions", ", ".join(f"{name} {version}" for name, version in context.versions.items())),
                ("started", context.started),
                ("records", context.run_path),
            )
            if value
        ],
        command=context.command,
    )


def _section(results: AgreementResults, one: LibraryAgreement) -> Section:
    return Section(
        title=one.title,
        entries=entries(one),
        attacks=tuple(line.attack for line in one.lines),
        differ=one.differ,
        most=max(1, *(count or 0 for counts in one.differ for count in counts)),
        pipelines=[
            (single.pipelines[0], [pipeline_entry(line, place) for place, line in enumerate(single.lines)])
            for single in results.pipelines_of(one)
        ],
        samples=[
            (
                " × ".join(part for part in key[:2] if part != "none") + f" on {key[2]}",
                key[3],
                ", ".join(broken),
                ", ".join(left),
            )
            for key, broken, left in one.samples[:MOST_SAMPLES]
        ],
        more=max(0, one.apart - MOST_SAMPLES),
    )
