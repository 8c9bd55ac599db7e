"""The conditions of a row, from its blocks."""

from __future__ import annotations

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.rows.conditions import BLACK_BOX_FLAG, LABELS_ONLY, Conditions


def conditions(results, worst):
    """The conditions of a row: of its cells, and of their worst case, whose samples they share."""
    cell = results[0].cell
    attacks = {(r.cell.attack, r.cell.attack_spec) for r in results if r.cell.adversarial}
    blocks = max((result.blocks for result in results), key=len)
    return Conditions(
        threat=cell.threat,
        data=cell.data,
        suite=cell.suite,
        seeds=tuple(sorted({result.cell.seed for result in results})),
        access=_access(results),
        attacks=tuple(sorted(attacks)),
        ids=tuple(str(name) for name in worst.id),
        images=tuple(str(block.provenance.get("data") or "") for block in blocks),
    )


def _access(results):
    flags = [flag for result in results for flag in cells.flags(result) if flag.name == BLACK_BOX_FLAG]
    if not flags:
        return "white-box"
    return "labels" if any(dict(flag.evidence).get(LABELS_ONLY) for flag in flags) else "scores"
