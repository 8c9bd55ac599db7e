"""Columns with few different values, kept as the values and a small number for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", str, float)

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Coded(Generic[T]):
    """`values[codes[n]]` is the value of sample n."""

    values: tuple[T, ...]
    codes: Codes

    @classmethod
    def of(cls, column: Sequence[T]) -> Coded[T]:
        """The column, its values in order of first appearance."""
        known = {value: code for code, value in enumerate(dict.fromkeys(column))}
        small = np.min_scalar_type(max(len(known) - 1, 0))
        return cls(tuple(known), np.fromiter(map(known.__getitem__, column), small, len(column)))

    def where(self, holds: Callable[[T], bool]) -> npt.NDArray[np.bool_]:
        """Whether that holds of each sample's value, bool (N,)."""
        wanted = np.array([holds(value) for value in self.values], dtype=np.bool_)
        chosen: npt.NDArray[np.bool_] = wanted[self.codes] if len(wanted) else np.zeros(len(self.codes), np.bool_)
        return chosen


def coded_floats(column: npt.NDArray[np.float64]) -> Coded[float]:
    """A column of numbers, float64 (N,)."""
    values, codes = np.unique(column, return_inverse=True)
    return Coded(tuple(values.tolist()), codes.astype(np.min_scalar_type(max(len(values) - 1, 0))))


def floats(column: Coded[float]) -> npt.NDArray[np.float64]:
    """A column of numbers, float64 (N,)."""
    values = np.array(column.values, dtype=np.float64)
    expanded: npt.NDArray[np.float64] = values[column.codes] if len(values) else np.empty(0)
    return expanded
