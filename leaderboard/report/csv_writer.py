"""CSV files: tables with stable columns and types, written as text, and read back with the same types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.results.escape import spreadsheet

TEXT: Final = "string"
COUNT: Final = "Int64"
NUMBER: Final = "float64"
BOOLEAN: Final = "bool"


def typed_frame(lines: Sequence[Mapping[str, Any]], dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A table with exactly the columns and types of `dtypes`; a number that a line lacks is empty."""
    columns = {
        name: pd.Series([_value(line, name, dtype) for line in lines], dtype=dtype) for name, dtype in dtypes.items()
    }
    return pd.DataFrame(columns)


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV with a header. Text and column names are escaped for spreadsheets (`escape.spreadsheet`)."""
    safe = frame.copy()
    for name in safe.columns[safe.dtypes == TEXT]:
        safe[name] = safe[name].map(spreadsheet)
    return str(safe.rename(columns=spreadsheet).to_csv(index=False, lineterminator="\n"))


def read_frame(path: Path, dtypes: Mapping[str, str]) -> pd.DataFrame:
    """A CSV file with the types of `dtypes`; a column that `dtypes` does not name holds numbers."""
    # Read as text first: a model may be called NA or null, and pandas 2 rounds decimals by default.
    texts = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    lines = texts.to_dict("records")
    types = {str(name): dtypes.get(str(name), NUMBER) for name in texts.columns}
    columns = {
        name: pd.Series([_parsed(line[name], dtype) for line in lines], dtype=dtype) for name, dtype in types.items()
    }
    return pd.DataFrame(columns)


def accuracy_columns(name: str, estimate: float, interval: tuple[float, float]) -> dict[str, float]:
    """The columns `<name>_accuracy`, `<name>_low` and `<name>_high` of a share with its interval."""
    low, high = interval
    return {f"{name}_accuracy": estimate, f"{name}_low": low, f"{name}_high": high}


def storable(text: str) -> str:
    """The text without lone surrogates, which file names may contain and a table of text cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _value(line: Mapping[str, Any], name: str, dtype: str) -> Any:
    return storable(line[name]) if dtype == TEXT else line.get(name, _empty(dtype))


def _parsed(text: str, dtype: str) -> Any:
    if dtype == TEXT:
        return text
    if dtype == BOOLEAN:
        return text == "True"
    if not text:
        return _empty(dtype)
    return int(text) if dtype == COUNT else float(text)


def _empty(dtype: str) -> Any:
    return pd.NA if dtype == COUNT else float("nan")
