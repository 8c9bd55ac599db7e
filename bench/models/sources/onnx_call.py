"""A call of an ONNX operator: a node of the graph with the values of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class OnnxCall:
    """A node with the values of its inputs; omitted inputs are None."""

    operator: str
    inputs: Sequence[Tensor | None]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def __getitem__(self, place: int) -> Tensor:
        value = self.optional(place)
        if value is None:
            raise NotImplementedError(f"{self.operator} without its input {place}")
        return value

    def optional(self, place: int) -> Tensor | None:
        """An optional input; None if it is omitted."""
        return self.inputs[place] if place < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, with bytes decoded."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def numbers(self, place: int, name: str) -> list[int] | None:
        """Whole numbers that are an attribute in older versions of the operator and an input in newer versions."""
        given = self.optional(place)
        if given is not None:
            return [int(number) for number in given.reshape(-1).tolist()]
        value = self.get(name)
        return None if value is None else [int(number) for number in value]
