"""A guard around code of other libraries, which undoes its changes to the model and to global state."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.views.kept_weights import weights_restored


class LogitsModel(nn.Module):
    """The model as a library sees it: float32 images to float32 logits, always in evaluation mode.

    Inputs of any floating dtype (some attacks of ART pass float64) are cast to `dtype`, the dtype of the images. The logits are a
    copy, because Square Attack of torchattacks writes into them. `anchor` is an empty parameter on the images' device:
    torchattacks 3.3 takes the device from the first parameter, and a model may have none.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """Wraps `model` for images of `dtype` on `device`."""
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(0, device=device), requires_grad=False)
        self.model = model
        self.dtype = dtype
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), float32, of images (N, C, H, W)."""
        logits: Tensor = self.model(images.to(self.dtype))
        return logits.clone().to(torch.float32)

    def train(self, mode: bool = True) -> LogitsModel:
        """Stays in evaluation mode: torchattacks and ART both restore the training mode."""
        return super().train(False)


_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def in_training(module: nn.Module) -> bool:
    """Whether a module is in training mode.

    A frozen TorchScript module has no mode any more: it was frozen for evaluation. Quantised layers have no effect of theirs, and
    are made in training mode from models in evaluation mode.
    """
    return bool(getattr(module, "training", False)) and not type(module).__module__.startswith(_QUANTISED)


@contextmanager
def guarded(model: nn.Module, seed: int, *, foreign: bool = False) -> Iterator[None]:
    """A context for code of others: global generators start from `seed`, and all changes are undone afterwards.

    Inside, the model is in evaluation mode with frozen parameters (no parameter gradients are computed), autograd is on,
    warnings and standard output are suppressed. Restored afterwards, also after exceptions: the training mode of every
    submodule; identity, values, `requires_grad` and `.grad` of parameters, identity and values of buffers; the random states
    of torch (CPU, CUDA), numpy and `random`; torch's default dtype and device, gradient mode and determinism flags; numpy's
    error handling; the filters of warnings. It copies parameters and buffers, within
    `gauntlet.attacks.views.kept_weights.weights_kept` once for all guards, which then find writes by version counters; writes
    past these are undone at once if code of others is run (`foreign`), else at the end of that context.
    """
    with ExitStack() as stack:
        stack.enter_context(generators_from(seed))
        stack.enter_context(_torch_settings())
        stack.enter_context(np.errstate())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        sink = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(sink))
        stack.enter_context(_frozen(model, foreign=foreign))
        yield


@contextmanager
def generators_from(seed: int) -> Iterator[None]:
    """A context in which the generators of torch, numpy and `random` start from `seed`; their states are restored after it."""
    cpu, legacy, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    seed_torch(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(legacy)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        elif torch.cuda.is_available():
            # CUDA was not initialised: the seed that is queued for it becomes the user's again.
            torch.cuda.manual_seed_all(torch.initial_seed())


def seed_torch(seed: int) -> None:
    """`torch.manual_seed`, of the CPU's generator alone where torch has no other device.

    For a GPU that is not initialised yet torch keeps each call with a stack trace, also where there is none.
    """
    if any(backend.is_available() for backend in (torch.cuda, torch.backends.mps, torch.xpu)):
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextmanager
def frozen_draw(keys: Tensor, restart: Tensor, number: int) -> Iterator[None]:
    """A context in which a randomised model always draws the same, by that number and the keys and restarts (N,) of samples.

    A model that takes its numbers from a global generator draws by the place of a sample in the batch, too.
    """
    with generators_from(number), model_randomness(Draws(keys, restart, torch.full_like(restart, number))):
        yield


@contextmanager
def _torch_settings() -> Iterator[None]:
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        now = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if now != (deterministic, warn_only):
            # Its first call in a process imports torch's compiler, which takes seconds.
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def _frozen(model: nn.Module, *, foreign: bool) -> Iterator[None]:
    modes = [(module, in_training(module)) for module in model.modules()]
    parameters = [(one, one.requires_grad, one.grad) for one in model.parameters()]
    with weights_restored(model, foreign=foreign):
        try:
            model.eval()
            for parameter, _, _ in parameters:
                # A gradient that is not there cannot be zeroed or added to.
                parameter.grad = None
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad
            for module, mode in modes:
                module.training = mode
