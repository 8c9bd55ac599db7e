"""The files of a leaderboard: leaderboard.csv, cells.csv, classes.csv and leaderboard.md, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gauntlet.leaderboard.class_tables import classes_frame
from gauntlet.leaderboard.escape import spreadsheet
from gauntlet.leaderboard.frames import cells_frame, leaderboard_frame
from gauntlet.leaderboard.markdown import RunContext, report
from gauntlet.leaderboard.record import CellResult
from gauntlet.leaderboard.table import rows
from gauntlet.leaderboard.terminal import terminal_table

__all__ = ["RunContext", "WrittenFiles", "csv_text", "replace_files", "terminal_table", "write"]


@dataclass(frozen=True)
class WrittenFiles:
    """Where the files lie."""

    leaderboard_csv: Path
    cells_csv: Path
    classes_csv: Path
    markdown: Path


def write(folder: Path, results: Sequence[CellResult], context: RunContext) -> WrittenFiles:
    """Write the four files into `folder`, which is made where it does not exist.

    The CSV files hold the tables of `frames`, accuracies as shares in 0..1: text as `string`, counts and ranks as
    `Int64`, other numbers as `float64`, yes or no as `bool`, an empty field for no value; `frames.read_leaderboard`,
    `frames.read_cells` and `class_tables.read_classes` give the same types back. Text is passed through `escape.spreadsheet`.

    Each file is written beside its place, flushed to the disk, and moved there once all of them are whole. Raises OSError
    that names the file; where it could not be written (a full disk, a missing right) all old files are as they were.
    """
    table = rows(results)
    names = ("leaderboard.csv", "cells.csv", "classes.csv", "leaderboard.md")
    files = WrittenFiles(*(folder / name for name in names))
    replace_files(
        {
            files.leaderboard_csv: csv_text(leaderboard_frame(table)).encode(),
            files.cells_csv: csv_text(cells_frame(results)).encode(),
            files.classes_csv: csv_text(classes_frame(table)).encode(),
            files.markdown: report(table, results, context).encode(),
        }
    )
    return files


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV with a header; text and column names are made safe for spreadsheets, numbers are left alone."""
    safe = frame.copy()
    for name in safe.columns[safe.dtypes == "string"]:
        safe[name] = safe[name].map(spreadsheet)
    return str(safe.rename(columns=spreadsheet).to_csv(index=False, lineterminator="\n"))


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write files so that all are replaced or none, folders included. Raises OSError that names the file."""
    staged: dict[Path, Path] = {}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
            with staged[path].open("xb") as file:
                file.write(content)
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
