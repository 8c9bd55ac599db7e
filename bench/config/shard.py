"""One of several equal parts of a run, for machines that share the work."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_TASK: Final = "SLURM_ARRAY_TASK_ID"
_COUNT: Final = "SLURM_ARRAY_TASK_COUNT"
_FIRST: Final = "SLURM_ARRAY_TASK_MIN"
_STEP: Final = "SLURM_ARRAY_TASK_STEP"
"""What Slurm tells a task of a job array (https://slurm.schedmd.com/job_array.html)."""


@dataclass(frozen=True)
class Shard:
    """The part `number` of `of`, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """`2/8`, or `auto` for the task of a Slurm job array. Raises ValueError that names the text and the way out."""
        if text == "auto":
            return cls._of_slurm(environment)
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text)
        if found is None or int(found[1]) > int(found[2]):
            raise ValueError(
                f"shard {text!r} is not understood: write I/N with 1 <= I <= N, such as 1/4, or auto in a Slurm job array"
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def _of_slurm(cls, environment: Mapping[str, str]) -> Shard:
        try:
            task, count = int(environment[_TASK]), int(environment[_COUNT])
            first, step = int(environment.get(_FIRST, "0")), int(environment.get(_STEP, "1"))
            number, rest = divmod(task - first, step)
        except KeyError as error:
            raise ValueError(
                f"shard 'auto' needs {error.args[0]}, which Slurm sets in job arrays (sbatch --array): write I/N elsewhere"
            ) from None
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"shard 'auto': {_TASK}={environment[_TASK]}, {_COUNT}={environment[_COUNT]} are no task of an array"
            ) from None
        if rest or not 0 <= number < count:
            raise ValueError(
                f"shard 'auto': {_TASK}={task} is none of the {count} tasks from {first} in steps of {step}: submit them as "
                "a range, such as --array=0-7"
            )
        return cls(number + 1, count)

    def owns(self, cell: str, block: int) -> bool:
        """Whether the block with this number of the cell with this name belongs to the shard.

        Blocks of a cell go round the shards from a place that its name decides, so that each shard has as many, whatever device
        it has.
        """
        first = int(hashlib.sha256(cell.encode()).hexdigest(), 16)
        return (first + block) % self.of == self.number - 1

    @property
    def name(self) -> str:
        """A part of the names of files that are a shard's own."""
        return f"shard-{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
