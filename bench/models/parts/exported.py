"""Programs of torch.export as modules: they have no mode, and perhaps a fixed batch size."""

from __future__ import annotations

from torch import Tensor, fx, nn

_SWITCHES = ("train", "eval")
_TRAINING = ("training", "train")
"""Names of the argument by which an operation works as in training: batch norm, dropout, RReLU."""


def settle_exported(model: nn.Module) -> None:
    """Give the exported programs within a model the mode that their operations have; torch says "training" of them all.

    They refuse `train()` and `eval()`, also where these are called on a module around them: afterwards these have no effect.
    """
    for module in list(model.modules()):
        if isinstance(module, fx.GraphModule) and any(name in vars(module) for name in _SWITCHES):
            for name in _SWITCHES:
                vars(module).pop(name, None)
            training = any(_trains(node) for node in module.graph.nodes)
            for part in module.modules():
                part.training = training


def exported_batch(model: nn.Module) -> int | None:
    """The number of images for which a program was exported; None for any number, and for other modules."""
    if not isinstance(model, fx.GraphModule):
        return None
    first = next((node.meta.get("val") for node in model.graph.nodes if node.op == "placeholder"), None)
    size = first.shape[0] if isinstance(first, Tensor) and first.ndim else None
    return size if isinstance(size, int) else None


def _trains(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return False
    values = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
    # Batch norm without running statistics takes those of the batch in any mode.
    tracked = values.get("running_mean") is not None or "running_mean" not in values
    return tracked and any(values.get(name) is True for name in _TRAINING)
