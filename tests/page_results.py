"""Planted results for tests of the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from builders import bits, cell_info, result
from gauntlet.leaderboard.compare.library_agreement import AgreementResults, Member, library_agreement
from gauntlet.leaderboard.page.content import PageContent
from gauntlet.leaderboard.page.details import row_details
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.results.summary import summaries
from gauntlet.leaderboard.rows.worst_case import row_key

CONTEXT = RunContext(("Linf:0.15",), "digits, 100 images", command="gauntlet run --model 'net'")
HOSTILE = "<script>window.hit=1</script>'\"><img src=x onerror='window.hit=2'>{{ 7 * 7 }}"
OURS, THEIRS = "pgd(steps=40)", "lib.PGD(steps=40)"
MASKED = Flag(
    "zero-gradient",
    "block",
    "No gradient reaches the image.",
    needs=("black-box",),
    evidence=(("planted-example: planted", 20.0), ("planted-example: missed", 0.0)),
)


def content_of(results, **changes):
    """The content of a page with these results, details included."""
    rows = {}
    for one in results:
        rows.setdefault(row_key(one.cell), []).append(one)
    given = {"results": summaries(results), "context": CONTEXT, "details": lambda key: row_details(rows[key])}
    return PageContent(**(given | changes))


def planted():
    """Two rows: `net` under three attacks, one of them of minimum norm, and `masked` with a flag that blocks its rank."""
    label = np.arange(100) % 10
    wrong = np.where(bits(100, 60), label, (label + 3) % 10)
    distances = np.linspace(0.05, 0.25, 100)
    return [
        result(bits(100, 60), cell_info("net"), label=label, prediction=wrong),
        result(bits(100, 70), cell_info("net", "square", attack_kind="black-box"), label=label),
        result(bits(100, 80), cell_info("masked"), label=label, flags=[MASKED]),
        result(bits(100, 30), cell_info("net", "fmn", minimum_norm=True), label=label, distance=distances),
    ]


def many(models, threats=("Linf:0.1", "Linf:0.2", "Linf:0.3", "L2:0.5"), n=100):
    """A row for each model and threat model, under two attacks, one of them of minimum norm; every ninth model is flagged."""
    label = np.arange(n) % 10
    made = []
    for model in range(models):
        generator = np.random.default_rng(model)
        for place, threat in enumerate(threats):
            distance = generator.gamma(2.0, 0.05 + 0.2 * model / models, n)
            robust = distance > float(threat.partition(":")[2])
            other = (label + generator.integers(1, 10, n)) % 10
            flags = [MASKED] if model % 9 == 8 else []
            for attack, broken in (("fmn", ~robust), ("pgd", ~robust & (generator.random(n) < 0.9))):
                made.append(
                    result(
                        ~broken,
                        cell_info(f"model_{model:03d}", attack, threat=threat, minimum_norm=attack == "fmn"),
                        label=label,
                        prediction=np.where(broken, other, label),
                        distance=distance if attack == "fmn" else np.where(broken, 0.1, np.nan),
                        flags=flags,
                        seconds=1.0 + model + place,
                    )
                )
    return made


def described(models):
    """Descriptions of the first models of `many`, with three architectures."""
    names = [f"model_{model:03d}" for model in range(models)]
    return {
        name: ModelDescription(
            name, f"Method {place}", architecture=f"WRN-{place % 3}", link=f"https://example.org/{place}"
        )
        for place, name in enumerate(names)
    }


def with_stats(one, **changes):
    """The result with other statistics in each block."""
    return replace(one, blocks=tuple(replace(block, stats=replace(block.stats, **changes)) for block in one.blocks))


def agreement_results(name=THEIRS, model="net"):
    """Two comparisons of two attacks: a library's breaks a sample more and returns three invalid points, and one that fails."""

    def cell(attack):
        return cell_info(model, attack)

    other = with_stats(result(bits(10, 3), cell(name)), outside_ball=0, outside_box=1, false_claims=2)
    failed = result((), cell(name), error=HOSTILE, expected=3)
    members = [Member("gauntlet", OURS, [result(bits(10, 4), cell(OURS))]), Member("lib", name, [other])]
    comparisons = (members, [Member("gauntlet", OURS, []), Member("lib", name, [failed])])
    together = tuple(library_agreement("PGD-40 Linf", "Linf:0.15", one) for one in comparisons)
    return AgreementResults(together, (), (f"the attacks of {name} are left out",))
