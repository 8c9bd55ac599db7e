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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gauntlet.leaderboard.gate.baseline import ArtifactRef, Key
from gauntlet.leaderboard.results.store import Store

LIST = "artifact.json"
_MEMBER = re.compile(r"artifact\.json|store/[0-9a-f]{2}/[0-9a-f]{64}\.parquet|weights/[0-9a-f]{64}\.safetensors")


class ArtifactError(ValueError):
    """An artifact cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True)
class Artifact:
    """An artifact that has been unpacked into `folder`."""

    folder: Path
    blocks: Mapping[Key, tuple[str, ...]]
    """Keys of the blocks of each cell of the baseline, in order."""
    store: Store
    """The artifact's blocks, as they were when it was opened."""

    def weights(self, digest: str) -> bytes | None:
        """The file of the weights with this digest; None if the artifact does not have it. Raises ArtifactError."""
        file = self.folder / "weights" / f"{digest}.safetensors"
        try:
            return file.read_bytes() if file.is_file() else None
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error.strerror}): run the same command again") from error


def unpack(file: Path, ref: ArtifactRef, folder: Path) -> Artifact:
    """Check the file's digest against the baseline's and unpack it below `folder`, unless that was done before.

    Raises ArtifactError for another file or a damaged one, OSError if nothing can be written.
    """
    target = folder / f"artifact-{ref.sha256[:16]}"
    if not target.is_dir():
        if sha256(file) != ref.sha256:
            raise ArtifactError(
                f"{file} is not the artifact that the baseline names (sha256 {sha256(file)[:12]}…, not {ref.sha256[:12]}…): "
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
        cells = json.loads((target / LIST).read_text(encoding="utf-8"))["cells"]
        blocks: dict[Key, tuple[str, ...]] = {tuple(key): tuple(keys) for key, keys in cells}  # type: ignore[misc]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{target} is damaged ({error}): delete it and run the same command again") from error
    return Artifact(target, blocks, Store.holding(target))


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


def sha256(file: Path) -> str:
    """The digest of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
