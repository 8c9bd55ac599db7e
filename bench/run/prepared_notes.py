"""Sentences on a prepared cell: how its weights were loaded, and what was measured of a model that declares nothing."""

from __future__ import annotations

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.worker.messages import PreparedCell


def prepared_notes(cell: Cell, prepared: PreparedCell) -> list[str]:
    """The sentences on loading, and those on what was measured."""
    loading = f"weights of {cell.info.model}: {'; '.join(prepared.notes)}"
    return [*([loading] if prepared.notes else []), *_measured(cell, prepared)]


def _measured(cell: Cell, prepared: PreparedCell) -> list[str]:
    """A sentence each for randomness and for useless gradients that no option, card or defense declares."""
    info = cell.info
    pipeline = info.model if info.defense == "none" else f"{info.model} × {info.defense}"
    notes = []
    if prepared.cell.randomised and not info.randomised:
        notes.append(
            f"measured: {pipeline} answers the same image differently; it is attacked as if --randomised were given"
        )
    # Naive attacks, certificates and replays measure the gradients too, and do nothing else for it.
    adapts = info.searches and not info.naive and not cell.model.not_differentiable
    if adapts and any(found.get("masked") or found.get("no_gradient") for found in prepared.measured.values()):
        notes.append(
            f"measured: gradients of {pipeline} are of no use; {info.attack} attacks it as if --not-differentiable were given"
        )
    return notes
