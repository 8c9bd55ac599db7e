"""TorchScript files: told from files of weights, read without running Python, and refused where their code uses files."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from gauntlet.attacks.views.guard import in_training
from gauntlet.bench.models.files.local_files import check_file
from gauntlet.bench.models.parts.errors import ModelError, short_error

_FILE_OPERATIONS = re.compile(r"\bfrom_file\b|(?<!self\.)\bsave\b")
"""Operations of TorchScript that read or write files: `aten::from_file` and `aten::save`. Models need neither."""


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of TorchScript: it has code, which files of weights have not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_torchscript(path: Path) -> nn.Module:
    """The module of a TorchScript file, on the CPU, in eval mode.

    TorchScript is run by torch's own interpreter, which cannot import or call Python. Raises ModelError for a file that is
    damaged, or no TorchScript, or whose code names an operation on files.
    """
    check_file(path, "TorchScript file")
    raw = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = archive.namelist()
            code = [archive.read(name).decode(errors="replace") for name in names if "/code/" in name]
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"TorchScript file {str(path)!r} is no archive of torch.jit.save, or damaged: {error}"
        ) from error
    if len(set(names)) < len(names):
        raise ModelError(f"TorchScript file {str(path)!r} is refused: it holds two entries of one name")
    if not code:
        raise ModelError(f"file {str(path)!r} holds no TorchScript: torch.jit.save writes such a file")
    if found := next((match[0] for text in code if (match := _FILE_OPERATIONS.search(text))), None):
        raise ModelError(
            f"TorchScript file {str(path)!r} is refused: its code names {found}, which reads or writes files; if you trust it, "
            "load it in a function of your own, --model FILE.py:FACTORY"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(io.BytesIO(raw), map_location="cpu")
    except Exception as error:  # torch raises errors of many types
        raise ModelError(f"TorchScript file {str(path)!r} cannot be read: {short_error(error)}") from error
    if any(in_training(part) for part in module.modules()):
        module.eval()
    return module
