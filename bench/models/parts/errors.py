"""The error for models that cannot be evaluated."""

from __future__ import annotations


class ModelError(ValueError):
    """The model cannot be evaluated; the message says why and what to do."""


class MissingFileError(ModelError):
    """A file that the model is named with does not exist."""


def short_error(error: BaseException, most: int = 300) -> str:
    """The type of an error and the first line of its message: messages of other libraries may fill a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= most else f"{text[:most]}…"
