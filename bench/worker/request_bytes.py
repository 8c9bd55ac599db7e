"""Requests as bytes: plain data as JSON, images and weights as they are in memory. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gauntlet.bench.config.schema import DataRef
from gauntlet.bench.planning.plan_request import PlanRequest
from gauntlet.bench.worker.request import (
    BaselineModel,
    DrawExamples,
    Images,
    Request,
    TryExamples,
    cell_fields,
    read_cell,
)
from gauntlet.bench.worker.seam import AnyRequest
from gauntlet.leaderboard.rows.closest_examples import BrokenSample


def encode_request(request: AnyRequest) -> tuple[str, bytes]:
    """A request as JSON, and the bytes of its images and weights."""
    match request:
        case PlanRequest():
            return json.dumps({"plan": json.loads(request.to_json())}), b""
        case Request():
            return json.dumps({"cell": json.loads(request.to_json())}), b""
        case TryExamples():
            baseline = request.baseline
            weights = b"" if baseline is None else baseline.weights
            fields = {
                "cell": cell_fields(request.cell),
                "indices": request.indices,
                "measured": request.measured,
                "image": _shape(request.images),
                "weights": len(weights),
                "baseline": None
                if baseline is None
                else {
                    "digest": baseline.digest,
                    "logits": baseline.logits,
                    "samples": baseline.samples,
                },
            }
            return json.dumps({"try": fields}), weights + request.images.tobytes()
        case DrawExamples():
            fields = {
                "data": dataclasses.asdict(request.data),
                "norm": request.norm,
                "title": request.title,
                "samples": [dataclasses.asdict(sample) for sample in request.samples],
                "image": [_shape(image) for image in request.images],
            }
            return json.dumps({"draw": fields}), b"".join(image.tobytes() for image in request.images)


def decode_request(text: str, content: bytes) -> AnyRequest:
    """The request that `encode_request` encoded. Raises ValueError, KeyError or TypeError for anything else."""
    ((kind, fields),) = json.loads(text).items()
    match kind:
        case "plan":
            return PlanRequest.from_json(json.dumps(fields))
        case "cell":
            return Request.from_json(json.dumps(fields))
        case "try":
            size, baseline = fields["weights"], fields["baseline"]
            return TryExamples(
                read_cell(fields["cell"]),
                tuple(fields["indices"]),
                _image(content[size:], fields["image"]),
                fields["measured"],
                None if baseline is None else _baseline(baseline, content[:size]),
            )
        case "draw":
            return DrawExamples(
                DataRef(**fields["data"]),
                fields["norm"],
                fields["title"],
                tuple(BrokenSample(**sample) for sample in fields["samples"]),
                tuple(images_of(content, fields["image"])),
            )
    raise ValueError(f"request of kind {kind!r} is not known: use the same version of gauntlet on both sides")


def _baseline(fields: Mapping[str, Any], weights: bytes) -> BaselineModel:
    logits = fields["logits"]
    given = None if logits is None else tuple(map(tuple, logits))
    return BaselineModel(fields["digest"], weights, given, tuple(fields["samples"]))


def images_of(content: bytes, shapes: Sequence[Mapping[str, Any]]) -> list[Images]:
    """The arrays whose bytes lie one after another in `content`."""
    images, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape["shape"]) * np.dtype(shape["dtype"]).itemsize
        images.append(_image(content[start:end], shape))
        start = end
    return images


def shapes_of(images: Sequence[Images]) -> list[dict[str, Any]]:
    """The shapes and types of arrays, for `images_of`."""
    return [_shape(image) for image in images]


def _shape(image: Images) -> dict[str, Any]:
    return {"dtype": image.dtype.str, "shape": list(image.shape)}


def _image(content: bytes, shape: Mapping[str, Any]) -> Images:
    array: Images = np.frombuffer(content, dtype=shape["dtype"]).reshape(shape["shape"])
    return array
