"""The files of a leaderboard: leaderboard.csv, cells.csv and leaderboard.md, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gauntlet.leaderboard.escape import spreadsheet
from gauntlet.leaderboard.frames import cells_frame, leaderboard_frame
from gauntlet.leaderboard.markdown import RunContext, report
from gauntlet.leaderboard.record import CellResult
from gauntlet.leaderboard.table import rows
from gauntlet.leaderboard.terminal import terminal_table

__all__ = ["RunContext", "WrittenFiles", "csv_text", "terminal_table", "write"]


@dataclass(frozen=True)
class WrittenFiles:
    """Where the files lie."""

    leaderboard_csv: Path
    cells_csv: Path
    markdown: Path


def write(folder: Path, results: Sequence[CellResult], context: RunContext) -> WrittenFiles:
    """Write the three files into `folder`, which is made where it does not exist.

    The CSV files hold the tables of `frames`, accuracies as shares in 0..1: text as `string`, counts and ranks as
    `Int64`, other numbers as `float64`, yes or no as `bool`, an empty field for no value; `frames.read_leaderboard` and
    `frames.read_cells` give the same types back. Text is passed through `escape.spreadsheet`.

    Each file is written beside its place, flushed to the disk, and moved there once all three are whole. Raises OSError
    that names the file; where it could not be written (a full disk, a missing right) all old files are as they were.
    """
    table = rows(results)
    files = WrittenFiles(folder / "leaderboard.csv", folder / "cells.csv", folder / "leaderboard.md")
    _replace(
        {
            files.leaderboard_csv: csv_text(leaderboard_frame(table)),
            files.cells_csv: csv_text(cells_frame(results)),
            files.markdown: report(table, results, context),
        }
    )
    return files


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV with a header; text and column names are made safe for spreadsheets, numbers are left alone."""
    safe = frame.copy()
    for name in safe.columns[safe.dtypes == "string"]:
        safe[name] = safe[name].map(spreadsheet)
    return str(safe.rename(columns=spreadsheet).to_csv(index=False, lineterminator="\n"))


def _replace(texts: Mapping[Path, str]) -> None:
    staged: dict[Path, Path] = {}
    path = next(iter(texts))
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with staged[path].open("xb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}: the file could not be written, free space or choose another folder"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
