"""Letting go of the graph that a model kept: of what it cached in an attribute or a buffer while its pass was intercepted."""

from __future__ import annotations

from torch import Tensor, nn


def release(model: nn.Module) -> None:
    """Detach the tensors that the model and its parts keep beside their parameters, where the pass left a graph on them.

    The model detached them, or computed them under `no_grad`; else it could not be copied any more, and its memory would grow.
    """
    for module in model.modules():
        for kept in (vars(module), module._buffers):
            for name, value in list(kept.items()):
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    kept[name] = value.detach()
