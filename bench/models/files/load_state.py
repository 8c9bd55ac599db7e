"""Loading the weights of a file into a model, strictly: every key and every shape must fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from gauntlet.bench.models.files.local_files import file_sha256
from gauntlet.bench.models.files.safe_weights import AVERAGED, PLAIN, Checkpoint, read_checkpoint
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.record import Flag

__all__ = ["file_sha256", "load_weights"]

_SHOWN = 5
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Prefixes of keys from DataParallel, torch.compile and training classes that wrap the network."""
_COUNT = "n_averaged"
"""Counter that torch's moving average saves beside the weights."""


def load_weights(model: nn.Module, path: Path) -> tuple[Flag, ...]:
    """Load a state dict into `model`, strictly; returns flags about the choice of weights.

    `path` may be `FILE#ENTRY` (see `read_checkpoint`). Prefixes of wrappers (`_PREFIXES`, in any combination) that all keys
    share are removed until the keys fit the model. Raises ModelError for a file that is missing, damaged or needs unpickling,
    and for keys and shapes that do not fit; the model is unchanged then.
    """
    own = model.state_dict()
    read = read_checkpoint(path)
    state = _unwrapped(read.state, own)
    # Older files have no batch counters, which have no effect in eval mode.
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked") and name not in state}
    misfit = _misfit(state, own, counters)
    if misfit:
        taken = f" (its entry {read.entry!r})" if read.entry else ""
        raise ModelError(f"weights {str(path)!r}{taken} do not fit the model: {misfit}")
    model.load_state_dict({**state, **counters})
    return _remarks(read, path)


def _unwrapped(state: Mapping[str, Tensor], own: Collection[str]) -> Mapping[str, Tensor]:
    """The state dict without prefixes of wrappers: as many are removed as make the most keys fit."""
    forms = [{name: value for name, value in state.items() if name != _COUNT or name in own}]
    while prefix := _prefix(forms[-1]):
        forms.append({name.removeprefix(prefix): value for name, value in forms[-1].items()})
    return max(forms, key=lambda form: len(set(form) & set(own)))


def _prefix(names: Collection[str]) -> str:
    """The prefix of a wrapper that all names share; empty if there is none."""
    return next((prefix for prefix in _PREFIXES if names and all(name.startswith(prefix) for name in names)), "")


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


def _remarks(read: Checkpoint, path: Path) -> tuple[Flag, ...]:
    others = [name for name in read.others if name in (*PLAIN, *AVERAGED)]
    if not others:
        return ()
    kind = "the moving average" if read.entry in AVERAGED else "not the moving average"
    which = kind if set(others) & set(AVERAGED) or read.entry in AVERAGED else "the first"
    return (
        Flag(
            "weights-entry",
            "warn",
            f"the weights are the entry {read.entry!r} of {path.name}, {which}; it also holds {', '.join(others)}, which "
            f"--weights {path.name.partition('#')[0]}#{others[0]} takes",
        ),
    )


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
