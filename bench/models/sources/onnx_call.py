"""A node of an ONNX graph with its inputs at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Call:
    """A node with its inputs at hand; inputs that are left out are None."""

    operator: str
    inputs: Sequence[Tensor | None]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def __getitem__(self, place: int) -> Tensor:
        found = self.optional(place)
        if found is None:
            raise NotImplementedError(f"{self.operator} without its input {place}")
        return found

    def optional(self, place: int) -> Tensor | None:
        """An input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; texts are bytes in the file."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def numbers(self, place: int, name: str) -> list[int] | None:
        """Whole numbers that older versions have as an attribute, newer ones as an input."""
        given = self.optional(place)
        if given is not None:
            return [int(one) for one in given.reshape(-1).tolist()]
        found = self.get(name)
        return None if found is None else [int(one) for one in found]
