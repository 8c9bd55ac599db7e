"""The artifact of a baseline: its adversarial examples and its models' weights, in a file named by its content.

A gate needs it to replay the baseline's examples on a changed model, and new examples on the baseline's model. The file is a
zip of the store's blocks (Parquet), weights (safetensors) and a list of both (JSON). It holds data only, no code.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gauntlet.leaderboard.gate.baseline import ArtifactRef, Key
from gauntlet.leaderboard.results.leftovers import temporary_name
from gauntlet.leaderboard.results.sealed_json import read_json
from gauntlet.leaderboard.results.store import Store

LIST = "artifact.json"
_BAD_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    struct.error,
)
"""What the standard library raises for damaged archives: also for flags, methods and offsets that no artifact has."""
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
    held: Mapping[str, str]
    """The digest of each file of weights, as it was then, by the digest of the model."""

    def weights(self, digest: str) -> bytes | None:
        """The file of the weights with this digest; None if the artifact does not have it. Raises ArtifactError."""
        if digest not in self.held:
            return None
        file = self.folder / "weights" / f"{digest}.safetensors"
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error.strerror}): run the same command again") from error
        if hashlib.sha256(content).hexdigest() != self.held[digest]:
            raise ArtifactError(f"{file} was replaced while this run was going on: delete its folder and run again")
        return content


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
        scratch = temporary_name(target)
        scratch.mkdir(parents=True)
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
        cells = read_json(target / LIST)["cells"]
        blocks: dict[Key, tuple[str, ...]] = {tuple(key): tuple(keys) for key, keys in cells}  # type: ignore[misc]
        if wrong := [key for keys in blocks.values() for key in keys if not re.fullmatch(r"[0-9a-f]{64}", key)]:
            raise ValueError(f"{wrong[0]!r} is not the key of a block")
        held = {path.stem: sha256(path) for path in (target / "weights").glob("*.safetensors")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{target} is damaged ({error}): delete it and run the same command again") from error
    return Artifact(target, blocks, Store.holding(target), held)


def _extract(file: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(file) as bundle:
            members = bundle.infolist()
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise ArtifactError(
                        f"{file} holds {member.filename!r}, which no artifact has: fetch the right file"
                    )
                # Members are stored as they are, so that none is larger than the file.
                if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                    raise ArtifactError(
                        f"{file} holds {member.filename!r} compressed, as no artifact does: fetch the right file"
                    )
            for member in members:
                content = _content(bundle, member)
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    except ArtifactError:
        raise
    except _BAD_ZIP as error:
        raise ArtifactError(f"{file} is damaged ({type(error).__name__}: {error}): fetch it again") from error


def _content(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The content of a member. Raises what `_BAD_ZIP` lists, and OSError if it cannot be read from the disk."""
    try:
        return bundle.read(member)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ValueError("a member lies outside the file") from error
        raise


def sha256(file: Path) -> str:
    """The digest of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
