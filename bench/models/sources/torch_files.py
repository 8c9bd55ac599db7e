"""Models from files of torch itself: TorchScript, and programs of torch.export."""

from __future__ import annotations

from pathlib import Path

from gauntlet.bench.models.files.exported_program import read_exported
from gauntlet.bench.models.files.local_files import check_file, file_sha256
from gauntlet.bench.models.files.torchscript import is_torchscript, read_torchscript
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.source_model import SourceModel


def load_script(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `torchscript:FILE`. Raises ModelError, for a file of weights with the way to load it."""
    path = _own_weights(source, pretrained)
    if path.suffix in (".pt", ".pth") and path.is_file() and not is_torchscript(check_file(path, "file")):
        raise ModelError(
            f"model {source.name!r} is a file of weights: write --model FILE.py:FACTORY --weights {source.name}"
        )
    return SourceModel(read_torchscript(path), _card(source, path, "TorchScript"), file_sha256(path))


def load_exported(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `export:FILE.pt2`. Raises ModelError."""
    path = _own_weights(source, pretrained)
    return SourceModel(read_exported(path), _card(source, path, "a program of torch.export"), file_sha256(path))


def _own_weights(source: ModelSource, pretrained: bool) -> Path:
    if not pretrained:
        raise ModelError(f"{source.kind}:{source.name} contains its weights: leave out --weights")
    return Path(source.name)


def _card(source: ModelSource, path: Path, summary: str) -> ModelCard:
    return ModelCard(name=source.title, summary=summary, weights=str(path), sha256=file_sha256(path))
