"""Loading the weights of a file into a model, strictly: every key and every shape of the model must fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from gauntlet.bench.models.files.fit_state import Fit, fit_state, whole_fits
from gauntlet.bench.models.files.local_files import file_sha256
from gauntlet.bench.models.files.safe_weights import AVERAGED, PLAIN, Checkpoint, read_checkpoint
from gauntlet.bench.models.files.stored_normaliser import StoredNormaliser, stored_normalisers
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.record import Flag

__all__ = ["file_sha256", "load_weights"]

_SHOWN = 5


@dataclass(frozen=True)
class LoadedWeights:
    """What was loaded from a file, and what was not."""

    remarks: tuple[Flag, ...]
    """Flags about the choice of weights."""
    notes: tuple[str, ...]
    """Sentences: which prefix was removed from how many keys, and what was left; none where the file is the state dict."""
    normalisers: tuple[StoredNormaliser, ...] = ()
    """Normalisers that the file holds beside the model's weights."""


def load_weights(model: nn.Module, path: Path) -> LoadedWeights:
    """Load a state dict into `model`.

    `path` may be `FILE#ENTRY:PREFIX` (see `read_checkpoint`). Without a prefix those of the usual wrappers are tried
    (`fit_state`). Every key and shape of the model must be below the prefix, and below it nothing else but copies of weights and
    normalisers; what is beside it is left, and said. Raises ModelError for a file that is missing, damaged or needs
    unpickling, and for keys and shapes that do not fit; the model is unchanged then.
    """
    own = model.state_dict()
    read = read_checkpoint(path)
    fit = fit_state(read.state, own, read.prefix)
    beside = {**fit.left, **{fit.prefix + name: value for name, value in fit.state.items() if name not in own}}
    normalisers = stored_normalisers(beside)
    pairs = {key for one in normalisers for key in one.keys}
    state = {name: value for name, value in fit.state.items() if name in own or fit.prefix + name not in pairs}
    # Older files have no batch counters, which have no effect in eval mode.
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state}
    misfit = _misfit(state, own, counters)
    if misfit:
        where = [f"its entry {read.entry!r}"] * bool(read.entry) + [f"below {fit.prefix!r}"] * bool(fit.prefix)
        taken = f" ({', '.join(where)})" if where else ""
        raise ModelError(
            f"weights {str(path)!r}{taken} do not fit the model: {misfit}{_elsewhere(read, fit, own, path)}"
        )
    model.load_state_dict({**state, **counters})
    inside = stored_normalisers({name: value for name, value in fit.state.items() if name in own})
    left = [name for name in fit.left if name not in pairs]
    return LoadedWeights(
        tuple(_remarks(read, fit, left, path)),
        tuple(_notes(fit, len(state), left)),
        # A model that has one of its own is not given another.
        () if inside else normalisers,
    )


def _elsewhere(read: Checkpoint, fit: Fit, own: Mapping[str, Tensor], path: Path) -> str:
    """Where in the file the model fits whole, as the end of a sentence."""
    others = [prefix for prefix in whole_fits(read.state, own) if prefix != fit.prefix]
    if not others:
        return ""
    return f"; all keys are below {_some([repr(one) for one in others])}: write {_selected(path, read, others[0])}"


def _selected(path: Path, read: Checkpoint, prefix: str) -> str:
    return f"{_file(path)}#{read.entry}:{prefix}"


def _file(path: Path) -> str:
    return path.name.partition("#")[0] if not path.exists() else path.name


def _misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], counters: Collection[str]) -> str:
    missing = [f"{name} {_shape(own[name])}" for name in sorted(set(own) - set(state) - set(counters))]
    unexpected = [f"{name} {_shape(state[name])}" for name in sorted(set(state) - set(own))]
    other = [
        f"{name} has shape {_shape(state[name])}, the model needs {_shape(own[name])}"
        for name in state
        if name in own and state[name].shape != own[name].shape
    ]
    problems = [f"{word} {_some(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names]
    return "; ".join([*problems, *([_some(other)] if other else [])])


def _notes(fit: Fit, count: int, left: Sequence[str]) -> Iterator[str]:
    if fit.prefix:
        yield f"{count} tensors are loaded, the prefix {fit.prefix!r} removed from their keys"
    if left:
        yield f"{len(left)} tensors of the file are left: {_some(left)}"


def _remarks(read: Checkpoint, fit: Fit, left: Sequence[str], path: Path) -> Iterator[Flag]:
    others = [name for name in read.others if name in (*PLAIN, *AVERAGED)]
    if others:
        kind = "the moving average" if read.entry in AVERAGED else "not the moving average"
        which = kind if set(others) & set(AVERAGED) or read.entry in AVERAGED else "the first"
        yield Flag(
            "weights-entry",
            "warn",
            f"the weights are the entry {read.entry!r} of {path.name}, {which}; it also holds {', '.join(others)}, which "
            f"--weights {_file(path)}#{others[0]} takes",
        )
    if left or fit.alike:
        below = f"those below {fit.prefix!r}" if fit.prefix else "those without a prefix"
        parts = [f"{len(left)} others are left: {_some(left)}"] if left else []
        parts += [
            f"those below {prefix!r} fit too, with other values: --weights {_selected(path, read, prefix)} takes them"
            for prefix in fit.alike[:1]
        ]
        yield Flag("weights-prefix", "warn", f"the weights are {below} in {path.name}; {'; '.join(parts)}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
