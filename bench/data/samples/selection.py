"""Selection of the samples of a data set that are evaluated."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.lazy_images import select_images
from gauntlet.leaderboard.results.user_text import read_user_text

FORMS = (
    "write 500 (the first 500), 100:600 (a slice), stratified:500 (the first samples of each class, equally many), or the "
    "path of a text file with one id per line"
)
_STRATIFIED = "stratified:"


def select(data: Data, samples: str | int | None) -> Data:
    """Select samples; they keep the positions that they have in `data`.

    `500`: the first 500. `100:600`, `:600`, `100:`: a slice. `stratified:500`: equally many samples of each class, the first
    of each, in the order of the data. Otherwise a UTF-8 text file with one id per line, whose order is kept; empty lines,
    lines that begin with # and text after ` #` are ignored. None: all. Lazy images are not read. Raises ValueError if there
    are fewer samples, and for an empty or negative slice and unknown or repeated ids.
    """
    return data if samples is None else subset(data, pick(data, samples))


def subset(data: Data, chosen: Sequence[int]) -> Data:
    """Select the samples at these indices; they keep the positions that they have in `data`."""
    return replace(
        data,
        images=select_images(data.images, chosen),
        labels=data.labels[chosen],
        ids=tuple(data.ids[i] for i in chosen),
        positions=tuple(data.positions[i] for i in chosen),
    )


def pick(data: Data, samples: str | int) -> list[int]:
    """The indices into `data` that `samples` selects (see `select`)."""
    text = str(samples).strip()
    if text.startswith(_STRATIFIED):
        return _stratified(data, text)
    count, bounds = len(data), _bounds(text)
    if bounds is None:
        return _from_file(Path(text), data.ids)
    start, stop = bounds[0], count if bounds[1] is None else bounds[1]
    if stop > count or (start >= count and bounds[1] is None):
        raise ValueError(f"samples {text!r} asks for more than the {count} samples of the data: write at most {count}")
    if start >= stop:
        raise ValueError(f"samples {text!r} is empty: ask for at least one of the {count} samples")
    return list(range(start, stop))


def _stratified(data: Data, text: str) -> list[int]:
    number = text.removeprefix(_STRATIFIED).strip()
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"samples {text!r} is not understood: {FORMS}")
    each, rest = divmod(int(number), data.classes)
    if rest:
        near = [str(share * data.classes) for share in (each, each + 1) if share]
        raise ValueError(
            f"samples {text!r} cannot be divided equally among the {data.classes} classes: write stratified:"
            f"{' or stratified:'.join(near)}"
        )
    there = torch.bincount(data.labels, minlength=data.classes)
    if int(there.min()) < each:
        least = int(there.argmin())
        raise ValueError(
            f"samples {text!r} are {each} of each class, but class {least} has {int(there[least])}: write at most "
            f"stratified:{int(there[least]) * data.classes}"
        )
    order = data.labels.argsort(stable=True)
    begins = there.cumsum(0) - there
    return sorted(order[torch.cat([torch.arange(begin, begin + each) for begin in begins.tolist()])].tolist())


def last_needed(samples: str | int | None) -> int | None:
    """Number of samples, from the first, that include the selection; None if only the full data can tell."""
    bounds = None if samples is None else _bounds(str(samples).strip())
    return None if bounds is None or not bounds[1] else bounds[1]


def _bounds(text: str) -> tuple[int, int | None] | None:
    """Start and stop of a number or slice; None for other text. Raises ValueError for negative numbers and steps."""
    if not re.fullmatch(r"[-+]?\d+|[-+\d\s]*(:[-+\d\s]*)+", text):
        return None
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        numbers = [-1]
    if len(numbers) > 2 or any(number is not None and number < 0 for number in numbers):
        raise ValueError(f"samples {text!r} is negative or has a step: {FORMS}")
    if len(numbers) == 1:
        return 0, numbers[0]
    return numbers[0] or 0, numbers[1]


def _from_file(path: Path, ids: Sequence[str]) -> list[int]:
    try:
        lines = read_user_text(path).splitlines()
    except OSError as error:
        raise ValueError(f"samples {str(path)!r} is neither a number, a slice nor a readable file: {FORMS}") from error
    except ValueError as error:
        raise ValueError(f"samples {str(path)!r} cannot be read: {error}") from error
    index = {sample_id: i for i, sample_id in enumerate(ids)}
    chosen: dict[int, int] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line not in index:  # an id may contain a #, such as a file name
            line = "" if line.startswith("#") else re.split(r"\s#", line)[0].strip()
        if not line:
            continue
        if line not in index:
            near = difflib.get_close_matches(line, ids, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; ids look like {ids[0]!r}"
            raise ValueError(f"{path}:{number}: no sample has the id {line!r}{hint}")
        if index[line] in chosen:
            raise ValueError(
                f"{path}:{number}: id {line!r} is already in line {chosen[index[line]]}: remove one of them"
            )
        chosen[index[line]] = number
    if not chosen:
        raise ValueError(f"{path} has no ids: write one id per line, for instance {ids[0]!r}")
    return list(chosen)
