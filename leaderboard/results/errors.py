"""Errors of a results folder."""

from __future__ import annotations

from pathlib import Path


class StoreError(RuntimeError):
    """A file of a results folder cannot be read or written; the message names the file and the remedy."""


class DamagedBlockError(StoreError):
    """A stored block cannot be read, or is not what was written."""

    def __init__(self, found: str) -> None:
        """`found`: the file and what is wrong with it."""
        super().__init__(f"{found}: delete it and run the same command again to compute it afresh")
        self.found = found


class WriteError(StoreError):
    """A file cannot be written, for instance because the disk is full."""

    @classmethod
    def of(cls, path: Path, cause: Exception) -> WriteError:
        """The error for the file `path` with the remedy."""
        return cls(
            f"cannot write {path}: {cause}. Existing files are kept as they are: free disk space, or correct what stands in the "
            "way or the permissions, and run the same command again"
        )
