"""The store: one immutable Parquet file for each block of a cell, named by its key. The first writer wins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.examples.clean_images import COLUMN as CLEAN
from gauntlet.leaderboard.examples.clean_images import keep_apart, read_clean
from gauntlet.leaderboard.results.atomic_files import move_file, remove_file, replace_file, replace_text, write_once
from gauntlet.leaderboard.results.block_file import (
    AlteredError,
    Columns,
    from_file,
    leaf_of,
    metadata_of,
    table_bytes,
    to_bytes,
    unaltered_record,
)
from gauntlet.leaderboard.results.errors import DamagedBlockError, StoreError
from gauntlet.leaderboard.results.held import Held, read_failure, read_failures, read_timing, same_outcome
from gauntlet.leaderboard.results.held import Timing as Timing
from gauntlet.leaderboard.results.measurements import Measurements
from gauntlet.leaderboard.results.pack_file import (
    PackedBlock,
    named,
    packed_metadata,
    packed_size,
    packed_table,
    read_packed,
)
from gauntlet.leaderboard.results.pack_index import packed_blocks, strike
from gauntlet.leaderboard.results.record import CellError, CellInfo, Record
from gauntlet.leaderboard.results.sealed_json import files_of_shards, sealed

T = TypeVar("T")

Stamp = tuple[int, ...]
"""Size and time of change, of one or two files."""


def _stamp(path: str) -> Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # of 80,000 files
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Store:
    """Results below `root`: `store/` has the blocks, `timings/` costs of later runs of theirs, `errors/` what failed."""

    root: Path
    held: Held | None = field(default=None, compare=False, repr=False)
    """If given, only these blocks and errors count, whatever else appears in the folder."""

    @classmethod
    def holding(cls, root: Path, *, measured: bool = True) -> Store:
        """A store that vouches for what it finds now and stores itself: what other code adds or changes later is not read.

        `measured`: that holds for measurements, too; else machines that share the folder agree on those that were stored first.
        """
        found, leaves = cls(root), {}
        for key in found.stored_keys():
            try:
                leaves[key] = found.leaf(key)
            except StoreError:
                # Found to be damaged where it is read.
                leaves[key] = ""
        errors = read_failures(root / "errors")
        return cls(root, Held(leaves, errors=errors, measured=Measurements(root).found() if measured else None))

    @property
    def measurements(self) -> Measurements:
        """What was measured of pipelines; where blocks are held, so are these."""
        return Measurements(self.root, self.held)

    def path(self, key: str) -> Path:
        """Where the block of that key lies, or would lie."""
        return Path(self.file(key))

    def has(self, key: str) -> bool:
        """Whether the block is stored, as a file of its own or in a pack."""
        if self.held is not None and key in self.held.own:
            return True
        known = self.held is None or key in self.held.leaves
        return known and (_stamp(self.file(key)) is not None or key in packed_blocks(self.root))

    def loose(self, key: str) -> bool:
        """Whether the block has a file of its own, which comes before what packs have."""
        return (self.held is None or key in self.held.leaves) and _stamp(self.file(key)) is not None

    def place(self, key: str) -> str:
        """Where the block is, for messages."""
        packed = None if self.loose(key) else packed_blocks(self.root).get(key)
        return str(self.path(key)) if packed is None else f"{packed.pack} (block {key[:16]})"

    def file(self, key: str) -> str:
        """The same as text."""
        return f"{self.root}/store/{key[:2]}/{key}.parquet"

    def stamp(self, key: str) -> Stamp | None:
        """The file of a block and of a note on its later run, as they are now; None where the block is not stored.

        A summary that was made of these files is made again once the stamp is another.
        """
        file = _stamp(self.file(key))
        if file is None and (packed := packed_blocks(self.root).get(key)) is not None:
            file = _stamp(str(packed.pack)) or (-1, -1)
        return None if file is None else (*file, *(_stamp(self._timing_file(key)) or ()))

    def write(self, record: Record) -> bool:
        """Store a block; False where another writer was first. Raises StoreError (disk full, no permission)."""
        return self.add(record.key, to_bytes(record))

    def add(self, key: str, block: bytes) -> bool:
        """Store a block that is bytes already; False where another writer was first. Raises StoreError."""
        if self.held is None:
            return key not in packed_blocks(self.root) and self._put(key, block)
        return self._hold(key, block, self.held)

    def _put(self, key: str, block: bytes) -> bool:
        """Write the file of a block, its clean images apart. False where another writer was first."""
        metadata = metadata_of(BytesIO(block))
        if CLEAN in metadata:
            table = pq.read_table(BytesIO(block), use_threads=False)
            block = table_bytes(keep_apart(table, self.root, metadata, replace_file))
        written = write_once(self.path(key), lambda file: file.write(block))
        if written and self.held is not None:
            self.held.leaves[key] = str(metadata["leaf"])
        return written

    def _hold(self, key: str, block: bytes, held: Held) -> bool:
        """The same where only held blocks count. A block that has appeared since counts for nothing."""
        if key in held.leaves or key in held.own:
            return False
        if self._put(key, block):
            return True
        held.own[key] = block
        with contextlib.suppress(StoreError):
            if same_outcome(Store(self.root).read(key), from_file(BytesIO(block))):
                return True
        self.set_aside(key)
        if self._put(key, block):
            del held.own[key]
        return True

    def read(self, key: str, *, adversarial: bool = False, columns: Columns | None = None) -> Record:
        """The block of that key; its examples only on demand. `columns`: what was read of it before, unchecked, without examples.

        What is read is whole: digests match, of the examples where they are read, and no column contradicts another (callers with
        `columns` check that). Raises DamagedBlockError, or AlteredError of `columns`; StoreError where it is absent or of another
        schema.
        """
        held = self.held
        if held is not None and key in held.own:
            return from_file(BytesIO(held.own[key]), adversarial=adversarial)

        def asked(record: Record, leaf: Callable[[], str]) -> Record:
            if record.key != key:
                raise AlteredError(f"it is the block of another key, {record.key!r}")
            if held is not None and held.leaves.get(key) != leaf():
                raise AlteredError("it was replaced while this run was going on")
            return record

        def whole(file: BinaryIO) -> Record:
            # In one piece, so that what is compared is what is read.
            file = file if held is None else BytesIO(file.read())
            record = from_file(file, adversarial=adversarial, find_clean=partial(read_clean, self.root))
            return asked(record, lambda: leaf_of(file))

        def packed(block: PackedBlock) -> Record:
            record, leaf = read_packed(block, adversarial=adversarial)
            return asked(record, lambda: leaf)

        if columns is not None:
            return asked(unaltered_record(columns), lambda: str(columns[1]["leaf"]))
        return self._read(key, whole, packed)

    def leaf(self, key: str) -> str:
        """The hash of a block's content, as its file or the index of its pack states it. Raises as `read`."""
        return self._read(key, leaf_of, lambda block: block.leaf)

    def content(self, key: str) -> bytes:
        """The block as the bytes of a file of its own, with its clean images. Raises as `read`, and OSError."""
        # Metadata are plain text; without clean images a file is taken as it is, whatever is wrong with it.
        if self.loose(key) and b'"encoding": "difference"' not in (block := self.path(key).read_bytes()):
            return block
        return to_bytes(self.read(key, adversarial=True))

    def clean_digest(self, key: str) -> str | None:
        """The digest of the clean images that the examples of a block differ from, if they do. Raises as `read`."""
        return self._read(key, metadata_of, packed_metadata).get(CLEAN)

    def table(self, key: str) -> pa.Table:
        """The columns of a block as they are stored, its metadata with the schema; unchecked. Raises as `read`."""

        def loose(file: BinaryIO) -> pa.Table:
            table = pq.read_table(file, use_threads=False)
            return keep_apart(table, self.root, metadata_of(file), replace_file)

        return self._read(key, loose, packed_table)

    def note_timing(self, key: str, timing: Timing) -> None:
        """Keep what a later run of a stored block cost. Raises StoreError."""
        if self.held is not None:
            self.held.timings[key] = timing
        replace_text(Path(self._timing_file(key)), sealed(dataclasses.asdict(timing), key))

    def timing(self, key: str) -> Timing | None:
        """What the latest run of a stored block cost; None if it was run once. Raises StoreError where the file is damaged."""
        if self.held is not None:
            return self.held.timings.get(key)
        return read_timing(self._timing_file(key), key)

    def _timing_file(self, key: str) -> str:
        return f"{self.root}/timings/{key[:2]}/{key}.json"

    def stored_keys(self) -> list[str]:
        """The keys of all stored blocks, sorted."""
        keys = {*self.loose_keys(), *packed_blocks(self.root)}
        return sorted(key for key in keys if self.held is None or key in self.held.leaves)

    def loose_keys(self) -> list[str]:
        """The keys of all blocks that have a file of their own, sorted."""
        return sorted(path.stem for path in (self.root / "store").glob("??/*.parquet"))

    def info(self, key: str) -> CellInfo:
        """The cell that a block belongs to. Raises StoreError where it is damaged or absent."""
        return self._read(key, lambda file: CellInfo.read(metadata_of(file)["cell"]), lambda block: block.cell)

    def set_aside(self, key: str) -> Path:
        """Move a damaged block to `damaged/`, so that it is computed again, and return its new place. Raises StoreError.

        A block of a pack is struck from the pack's index instead, and the new place is a note.
        """
        if self.held is not None:
            self.held.leaves.pop(key, None)
        if _stamp(self.file(key)) is None and (packed := packed_blocks(self.root).get(key)) is not None:
            note = self.root / "damaged" / f"{key}.json"
            replace_text(note, json.dumps({"pack": packed.pack.name, "row_group": packed.group}))
            strike(key, packed)
            return note
        return move_file(self.path(key), self.root / "damaged" / f"{key}.parquet")

    def _read(self, key: str, read: Callable[[BinaryIO], T], read_pack: Callable[[PackedBlock], T]) -> T:
        """Apply `read` to the file of a block, or `read_pack` to its place in a pack. Raises as the method `read`."""
        path = self.file(key)
        try:
            # The file is opened here: a missing file is then told apart from a damaged one.
            with pa.OSFile(path, "rb") as file:
                return named(path, lambda: read(file))
        except FileNotFoundError:
            packed = packed_blocks(self.root).get(key)
        except OSError as error:
            raise DamagedBlockError(f"{path} is damaged ({error})") from error
        if packed is None:
            raise StoreError(f"{path} is missing: run the same command again to compute it")
        return named(f"{packed.pack} (block {key[:16]})", lambda: read_pack(packed))

    def size(self, key: str) -> int:
        """Bytes on disk."""
        stamp = _stamp(self.file(key))
        return stamp[0] if stamp is not None else packed_size(packed_blocks(self.root)[key])

    def write_error(self, name: str, error: CellError) -> None:
        """Keep the latest failure of a cell, `name` being its identity within the store."""
        if self.held is not None:
            self.held.errors[name] = error
        replace_text(self.root / "errors" / f"{name}.json", sealed(dataclasses.asdict(error), name))

    def read_error(self, name: str) -> CellError | None:
        """The latest failure of a cell, or else of a shard of it, if any. Raises StoreError where its file is damaged."""
        if self.held is not None:
            return self.held.error(name)
        path = Path(f"{self.root}/errors/{name}.json")
        if not path.exists():
            path = min(files_of_shards(self.root / "errors", name), default=path)
        return read_failure(path)

    def clear_error(self, name: str) -> None:
        """Forget the failure of a cell that has succeeded since, and those of its shards."""
        if self.held is not None:
            self.held.clear_error(name)
        folder = self.root / "errors"
        for path in (folder / f"{name}.json", *files_of_shards(folder, name)):
            remove_file(path)
