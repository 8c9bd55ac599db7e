"""The artifact of a baseline: its adversarial examples and its models' weights, in a file named by its content.

A gate needs it to replay the baseline's examples on a changed model, and new examples on the baseline's model. The file is a
zip of the store's blocks (Parquet), weights (safetensors) and a list of both (JSON). It holds data only, no code.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.leaderboard.gate.baseline import ArtifactRef, Key
from gauntlet.leaderboard.results.atomic_files import replace_file
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.store import Store

_LIST = "artifact.json"
_MEMBER = re.compile(r"artifact\.json|store/[0-9a-f]{2}/[0-9a-f]{64}\.parquet|weights/[0-9a-f]{64}\.safetensors")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ArtifactError(ValueError):
    """An artifact cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True)
class Artifact:
    """An artifact that has been unpacked into `folder`."""

    folder: Path
    blocks: Mapping[Key, tuple[str, ...]]
    """Keys of the blocks of each cell of the baseline, in order."""

    @property
    def store(self) -> Store:
        """The store with the artifact's blocks."""
        return Store(self.folder)

    def weights(self, digest: str) -> Path | None:
        """The file of the weights with this digest; None if the artifact does not have it."""
        file = self.folder / "weights" / f"{digest}.safetensors"
        return file if file.is_file() else None


def pack(path: Path, store: Store, blocks: Mapping[Key, Sequence[str]], models: Mapping[str, nn.Module]) -> ArtifactRef:
    """Write the blocks of `store` and the models (by digest) beside `path`, as `STEM-DIGEST.zip`.

    The same content gives the same bytes. Raises StoreError or OSError if a file cannot be read or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".artifact-") as scratch:
        file = Path(scratch, "artifact.zip")
        with zipfile.ZipFile(file, "w") as bundle:
            cells = sorted([list(key), list(keys)] for key, keys in blocks.items())
            bundle.writestr(zipfile.ZipInfo(_LIST, _EPOCH), json.dumps({"cells": cells}))
            for key in sorted({key for keys in blocks.values() for key in keys}):
                _add(bundle, f"store/{key[:2]}/{key}.parquet", store.path(key))
            for weights_digest, model in sorted(models.items()):
                saved = Path(scratch, "weights")
                save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in _tensors(model)}, saved)
                _add(bundle, f"weights/{weights_digest}.safetensors", saved)
        digest = _sha256(file)
        target = path.with_name(f"{path.stem}-{digest[:12]}.zip")
        size = file.stat().st_size
        with file.open("rb") as content:
            replace_file(target, lambda out: shutil.copyfileobj(content, out))
    return ArtifactRef(target.name, digest, size)


def unpack(file: Path, ref: ArtifactRef, folder: Path) -> Artifact:
    """Check the file's digest against the baseline's and unpack it below `folder`, unless that was done before.

    Raises ArtifactError for another file or a damaged one, OSError if nothing can be written.
    """
    target = folder / f"artifact-{ref.sha256[:16]}"
    if not target.is_dir():
        if _sha256(file) != ref.sha256:
            raise ArtifactError(
                f"{file} is not the artifact that the baseline names (sha256 {_sha256(file)[:12]}…, not {ref.sha256[:12]}…): "
                "fetch the right file, or accept the baseline again with --artifact"
            )
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".artifact-"))
        try:
            _extract(file, scratch)
            scratch.rename(target)
        except OSError:
            # Another process may have unpacked it first.
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    try:
        cells = json.loads((target / _LIST).read_text(encoding="utf-8"))["cells"]
        blocks: dict[Key, tuple[str, ...]] = {tuple(key): tuple(keys) for key, keys in cells}  # type: ignore[misc]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{target} is damaged ({error}): delete it and run the same command again") from error
    return Artifact(target, blocks)


def restore(model: nn.Module, file: Path, digest: str) -> None:
    """Load the tensors of a file into a model of the same architecture, in place.

    Raises ArtifactError if they do not fit, or if the digest of the result is not `digest`.
    """
    try:
        state = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{file} is damaged ({error}): delete its folder and run the same command again") from error
    own = dict(_tensors(model))
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in state.items()}:
        raise ArtifactError("the baseline's weights do not fit the current architecture")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
    if model_digest(model) != digest:
        raise ArtifactError("the current model with the baseline's weights is not the baseline's model")


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The tensors that `model_digest` covers, by name."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _add(bundle: zipfile.ZipFile, name: str, file: Path) -> None:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}): run the same command again") from error
    bundle.writestr(zipfile.ZipInfo(name, _EPOCH), content)


def _extract(file: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as bundle:
            for name in bundle.namelist():
                if not _MEMBER.fullmatch(name):
                    raise ArtifactError(f"{file} holds {name!r}, which no artifact has: fetch the right file")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with bundle.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    except zipfile.BadZipFile as error:
        raise ArtifactError(f"{file} is damaged ({error}): fetch it again") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
