"""Models from ONNX files: converted to torch and compared with onnxruntime, or run by onnxruntime as a black box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gauntlet.bench.models.files.local_files import file_sha256
from gauntlet.bench.models.parts.black_box import BlackBox
from gauntlet.bench.models.parts.card import ModelCard
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.black_box_function import shared_queries
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.onnx_file import (
    OnnxFile,
    check_convertible,
    read_onnx,
    to_network,
    unsupported_operator,
)
from gauntlet.bench.models.sources.onnx_network import OnnxNetwork
from gauntlet.bench.models.sources.parse_source import ModelSource
from gauntlet.bench.models.sources.source_model import SourceModel

AGREEMENT = 1e-3
"""Largest difference from onnxruntime, relative to the largest output; 1e-7 to 1e-5 is usual."""
_USUAL = ((3, 32), (1, 28), (3, 224))
"""Channels and side length to try for a file that accepts any."""
_IMAGES = 3

ImageArray = npt.NDArray[np.float32]


def load(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `onnx:FILE.onnx` as a torch module, checked against onnxruntime on random images. Raises ModelError."""
    file = _read(source, pretrained)
    check_convertible(file)
    run = _session(file)
    model = _agreeing(file, run)
    size = _complete(file, run)
    card = _card(source, file, size, "converted to torch, compared with onnxruntime")
    return SourceModel(model, card, card.sha256)


def load_black_box(source: ModelSource, *, pretrained: bool) -> SourceModel:
    """Load `onnx-blackbox:FILE.onnx`, run by onnxruntime: scores or, with `classes`, predictions. Raises ModelError."""
    file = _read(source, pretrained)
    settings: dict[str, Any] = source.keywords
    model = BlackBox(_session(file), name=source.title, **settings)
    model.queries = shared_queries(f"{source.name}:", model.queries)
    card = _card(source, file, None, "run by onnxruntime, without gradients")
    return SourceModel(model, card, card.sha256)


def _read(source: ModelSource, pretrained: bool) -> OnnxFile:
    if not pretrained:
        raise ModelError(f"{source.kind}:{source.name} contains its weights: leave out --weights")
    return read_onnx(Path(source.name))


def _card(source: ModelSource, file: OnnxFile, size: tuple[int, int, int] | None, summary: str) -> ModelCard:
    proto = file.proto
    maker = f"{proto.producer_name} {proto.producer_version}".strip()
    return ModelCard(
        name=source.title,
        summary=f"ONNX{f' of {maker}' if maker else ''}, {summary}",
        architecture=f"{len(proto.graph.node)} nodes",
        weights=str(file.path),
        sha256=file_sha256(file.path),
        input_size=size,
        access=source.access,
    )


def _session(file: OnnxFile) -> Callable[[ImageArray], Any]:
    """A function that runs the file: images (N, C, H, W) to its first output, in parts for a fixed batch size."""
    runtime = import_library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own errors
        raise ModelError(
            f"onnxruntime cannot open {str(file.path)!r}: {short_error(error)}; it may need a newer onnxruntime, or an "
            "operator of its own"
        ) from error
    kind = {1: np.float32, 10: np.float16, 11: np.float64}.get(file.element)
    if kind is None:
        raise ModelError(f"ONNX file {str(file.path)!r} does not accept floating-point images: export it with float32")

    def run(images: ImageArray) -> Any:
        fed = images.astype(kind)
        fed = fed.transpose(0, 2, 3, 1) if file.channels_last else fed
        step = file.batch or max(1, len(fed))
        parts = []
        for start in range(0, len(fed), step):
            part = fed[start : start + step]
            missing = step - len(part) if file.batch else 0
            full = np.concatenate([part, np.repeat(part[:1], missing, axis=0)])
            (outputs,) = session.run([file.output], {file.image: np.ascontiguousarray(full)})
            parts.append(outputs[: len(part)])
        return np.concatenate(parts)

    return run


def _complete(file: OnnxFile, run: Callable[[ImageArray], Any]) -> tuple[int, int, int]:
    """Channels, height and width of the file, or usual sizes that it accepts."""
    channels, height, width = file.size
    errors = []
    for usual_channels, edge in _USUAL:
        size = (channels or usual_channels, height or edge, width or edge)
        try:
            run(np.zeros((1, *size), dtype=np.float32))
        except Exception as error:  # the runtime raises its own errors
            errors.append(short_error(error))
        else:
            return size
    raise ModelError(f"onnxruntime fails on {str(file.path)!r} with images of any usual size: {errors[0]}")


def _agreeing(file: OnnxFile, run: Callable[[ImageArray], Any]) -> OnnxNetwork:
    """The converted file. A fixed batch size is kept only if the file does not accept others, which are faster."""
    size = _complete(file, run)
    images = torch.rand(_IMAGES, *size, generator=torch.Generator().manual_seed(0))
    images[0] = torch.linspace(0, 1, size[2])
    expected = torch.from_numpy(np.asarray(run(images.numpy())))
    if expected.ndim != 2 or not expected.is_floating_point():
        raise ModelError(
            f"ONNX file {str(file.path)!r} returns {tuple(expected.shape)} of {expected.dtype} for {_IMAGES} images: a "
            f"classifier returns logits (N, K); a file that returns classes is attacked as onnx-blackbox:{file.path}(classes=K)"
        )
    worst = ""
    for batch in dict.fromkeys([None, file.batch]):
        model = to_network(file, batch=batch)
        try:
            with torch.no_grad():
                outputs = model(images.to(torch.float64 if file.element == 11 else torch.float32))
        except NotImplementedError as error:
            raise unsupported_operator(file, error) from error
        except Exception as error:  # shapes that hold for one batch size only
            worst = short_error(error)
            continue
        gap = _gap(outputs if model.output == file.output else outputs.softmax(1), expected)
        if gap <= AGREEMENT:
            return model
        worst = f"outputs differ by {gap:.2g} of the largest"
    raise ModelError(
        f"ONNX file {str(file.path)!r}, converted to torch, disagrees with onnxruntime ({worst}): attack it without "
        f"gradients, as onnx-blackbox:{file.path}"
    )


def _gap(outputs: Tensor, expected: Tensor) -> float:
    if outputs.shape != expected.shape:
        return float("inf")
    gap = float((outputs.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-12))
    return gap if gap == gap else float("inf")
