"""Reusing the results of another folder, such as a cache that only the base branch writes: read there, and never written."""

from __future__ import annotations

from gauntlet.bench.config.schema import Config, ConfigError
from gauntlet.bench.run.damaged_blocks import Note
from gauntlet.bench.worker.messages import PreparedCell
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.store import Store


def reused_store(config: Config, note: Note, *, held: bool = False) -> Store | None:
    """The store of the folder that a configuration reuses; None without one, and with a note for one that does not exist.

    `held`: what appears there later, or is replaced, is not read. Raises ConfigError for the results folder itself, or
    a file.
    """
    folder = config.reuse
    if folder is None:
        return None
    if folder.resolve() == config.out.resolve():
        raise ConfigError(f"reuse={str(folder)!r} is the results folder itself: name another --out, or leave it out")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"reuse={str(folder)!r} is no folder: name the results folder of an earlier run")
    if not folder.exists():
        note(f"nothing to reuse: {folder} does not exist")
        return None
    return Store.holding(folder) if held else Store(folder)


def reuse_measurements(name: str, reused: Store, store: Store, note: Note) -> None:
    """Take what the reused folder has measured of a pipeline, so that keys agree. Damaged files are named and left."""
    try:
        for key, measured in reused.measurements.of_cell(name).items():
            store.measurements.settle(name, key, measured)
    except StoreError as error:
        note(f"warning: not reused: {error}")


def reuse_blocks(prepared: PreparedCell, reused: Store, store: Store, note: Note) -> None:
    """Copy the blocks of a cell that the store lacks and the reused one has. Raises StoreError if they cannot be written.

    A block is read whole first, by its digests and with its examples; one that is not what was written is named and left.
    """
    for block in prepared.blocks:
        if store.has(block.key) or not reused.has(block.key):
            continue
        try:
            record = reused.read(block.key, adversarial=True)
        except StoreError as error:
            note(f"warning: not reused: {error}")
            continue
        if len(record.samples) == block.size:
            store.write(record)
