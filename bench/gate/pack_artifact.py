"""Packing the artifact of a baseline: the blocks of its examples, and the weights of its models."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from gauntlet.bench.gate.artifact import LIST, sha256
from gauntlet.leaderboard.gate.baseline import ArtifactRef, Key
from gauntlet.leaderboard.results.atomic_files import replace_file
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.store import Store

_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(path: Path, store: Store, blocks: Mapping[Key, Sequence[str]], models: Mapping[str, nn.Module]) -> ArtifactRef:
    """Write the blocks of `store` and the models (by digest) beside `path`, as `STEM-DIGEST.zip`.

    The same content gives the same bytes. Raises StoreError or OSError if a file cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".artifact-") as scratch:
        file = Path(scratch, "artifact.zip")
        with zipfile.ZipFile(file, "w") as bundle:
            cells = sorted([list(key), list(keys)] for key, keys in blocks.items())
            bundle.writestr(zipfile.ZipInfo(LIST, _EPOCH), json.dumps({"cells": cells}))
            for key in sorted({key for keys in blocks.values() for key in keys}):
                _add(bundle, f"store/{key[:2]}/{key}.parquet", _content(store, key))
            for weights_digest, model in sorted(models.items()):
                saved = Path(scratch, "weights")
                save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(model)}, saved)
                _add(bundle, f"weights/{weights_digest}.safetensors", saved.read_bytes())
        digest = sha256(file)
        target = path.with_name(f"{path.stem}-{digest[:12]}.zip")
        size = file.stat().st_size
        with file.open("rb") as content:
            replace_file(target, lambda out: shutil.copyfileobj(content, out))
    return ArtifactRef(target.name, digest, size)


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The tensors that `model_digest` covers, by name."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _content(store: Store, key: str) -> bytes:
    try:
        return store.content(key)
    except OSError as error:
        raise StoreError(f"{store.place(key)} cannot be read ({error.strerror}): run the same command again") from error


def _add(bundle: zipfile.ZipFile, name: str, content: bytes) -> None:
    bundle.writestr(zipfile.ZipInfo(name, _EPOCH), content)
