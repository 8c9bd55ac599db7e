"""ONNX files as models: every converted operator against onnxruntime, whole networks, and files that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.bench.models.sources.onnx_call import OnnxCall
from gauntlet.bench.models.sources.onnx_operators import OPERATORS

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(0)
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def model_of(nodes, inputs, outputs, weights=(), opset=20):
    graph = helper.make_graph(nodes, "test", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(model, feed):
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


# --- operators ---

X = floats(2, 4, 7, 6)
POSITIVE = np.abs(X) + 0.5
KERNEL = floats(6, 4, 3, 3)
CASES = [
    *[
        (name, (X,), {}, 20)
        for name in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "GlobalAveragePool", "GlobalMaxPool")
    ],
    *[
        (name, (X,), {}, 20)
        for name in ("HardSwish", "Identity", "IsNaN", "Mish", "Neg", "Relu", "Round", "Sigmoid", "Sign")
    ],
    *[(name, (X,), {}, 20) for name in ("Sin", "Softplus", "Softsign", "Tanh", "Elu", "Celu", "Selu", "HardSigmoid")],
    *[(name, (POSITIVE,), {}, 20) for name in ("Log", "Reciprocal", "Sqrt")],
    *[
        (name, (X, floats(4, 1, 6)), {}, 20)
        for name in ("Add", "Sub", "Mul", "Div", "Greater", "LessOrEqual", "Max", "Min")
    ],
    *[(name, (X, floats(1, 4, 7, 1)), {}, 20) for name in ("Sum", "Mean", "Less", "GreaterOrEqual", "PRelu")],
    ("Pow", (POSITIVE, np.float32(1.5)), {}, 20),
    ("Pow", (X, whole(2)), {}, 20),
    ("Div", (whole(7, -7, 9), whole(2, 2, 4)), {}, 20),
    ("Mod", (whole(7, -7, 9), whole(2, 4, 4)), {}, 20),
    ("Mod", (X, floats(6)), {"fmod": 1}, 20),
    ("Equal", (whole(1, 2, 3), whole(1, 0, 3)), {}, 20),
    ("Not", (X > 0,), {}, 20),
    ("And", (X > 0, X < 1), {}, 20),
    ("Or", (X > 1, X < 0), {}, 20),
    ("Where", (X > 0, X, floats(6)), {}, 20),
    ("MatMul", (floats(2, 3, 5), floats(5, 4)), {}, 20),
    ("Gemm", (floats(3, 5), floats(4, 5), floats(4)), {"transB": 1, "alpha": 0.5, "beta": 2.0}, 20),
    ("Gemm", (floats(5, 3), floats(5, 4)), {"transA": 1}, 20),
    ("Einsum", (floats(2, 3, 4), floats(2, 4, 5)), {"equation": "bij,bjk->bik"}, 20),
    ("Conv", (X, KERNEL, floats(6)), {"pads": [1, 1, 1, 1], "strides": [2, 1]}, 20),
    ("Conv", (X, KERNEL), {"pads": [0, 1, 2, 0], "dilations": [2, 1]}, 20),
    ("Conv", (X, floats(8, 1, 3, 3)), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}, 20),
    ("Conv", (X, KERNEL), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 20),
    ("Conv", (X, KERNEL), {"auto_pad": "VALID"}, 20),
    ("Conv", (floats(2, 4, 9), floats(6, 4, 3)), {"pads": [1, 1]}, 20),
    ("ConvTranspose", (X, floats(4, 3, 3, 3), floats(3)), {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 20),
    ("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 20),
    ("MaxPool", (-POSITIVE,), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 20),
    ("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 20),
    ("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 20),
    ("AveragePool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, 19),
    ("AveragePool", (X,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 19),
    ("AveragePool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 19),
    (
        "AveragePool",
        (X,),
        {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1},
        19,
    ),
    ("BatchNormalization", (X, floats(4), floats(4), floats(4), POSITIVE[0, :, 0, 0]), {"epsilon": 1e-3}, 20),
    ("InstanceNormalization", (X, floats(4), floats(4)), {}, 20),
    ("LayerNormalization", (X, floats(6), floats(6)), {}, 20),
    ("LayerNormalization", (X, floats(7, 6)), {"axis": -2, "epsilon": 1e-3}, 20),
    ("GroupNormalization", (X, floats(2), floats(2)), {"num_groups": 2}, 20),
    ("GroupNormalization", (X, floats(4), floats(4)), {"num_groups": 2}, 21),
    ("LRN", (X,), {"size": 3}, 20),
    ("LpNormalization", (X,), {"axis": 1, "p": 2}, 20),
    ("Softmax", (X,), {"axis": 1}, 20),
    ("Softmax", (X,), {"axis": 2}, 11),
    ("LogSoftmax", (X,), {}, 20),
    ("Gelu", (X,), {}, 20),
    ("Gelu", (X,), {"approximate": "tanh"}, 20),
    ("LeakyRelu", (X,), {"alpha": 0.2}, 20),
    ("Clip", (X, np.float32(-0.5), np.float32(0.5)), {}, 20),
    ("Clip", (X, None, np.float32(0.5)), {}, 20),
    ("Clip", (X,), {"min": -0.5, "max": 0.5}, 6),
    ("Dropout", (X,), {}, 20),
    ("Cast", (X,), {"to": 7}, 20),
    ("CastLike", (whole(1, 2), X), {}, 20),
    ("Reshape", (X, whole(0, -1, 3)), {}, 20),
    ("Flatten", (X,), {"axis": 2}, 20),
    ("Flatten", (X,), {"axis": -1}, 20),
    ("Transpose", (X,), {"perm": [0, 2, 3, 1]}, 20),
    ("Transpose", (X,), {}, 20),
    ("Concat", (X, X), {"axis": -3}, 20),
    ("Split", (X, whole(1, 3)), {"axis": 1}, 20),
    ("Split", (X,), {"axis": 2, "num_outputs": 2}, 20),
    ("Split", (X,), {"axis": 1, "split": [2, 2]}, 11),
    ("Slice", (X, whole(0, -3), whole(9, -1), whole(2, 3)), {}, 20),
    ("Slice", (X, whole(-1), whole(-9), whole(3), whole(-2)), {}, 20),
    ("Slice", (X,), {"starts": [1], "ends": [3], "axes": [1]}, 9),
    ("Gather", (X, np.array([[0, -1]], dtype=np.int64)), {"axis": 1}, 20),
    ("Gather", (whole(5, 6, 7), np.array(1, dtype=np.int64)), {}, 20),
    ("GatherElements", (floats(3, 3), np.array([[0, -1, 1]], dtype=np.int64)), {"axis": 0}, 20),
    ("Squeeze", (X[:, :1], whole(1)), {}, 20),
    ("Squeeze", (X[:1, :1],), {}, 20),
    ("Squeeze", (X[:, :1],), {"axes": [1]}, 11),
    ("Unsqueeze", (X, whole(0, -1)), {}, 20),
    ("Shape", (X,), {"start": 1, "end": -1}, 20),
    ("ConstantOfShape", (whole(2, 3),), {"value": numpy_helper.from_array(np.array([2.5], dtype=np.float32))}, 20),
    ("ConstantOfShape", (whole(2, 3),), {}, 20),
    ("Range", (np.array(1, dtype=np.int64), np.array(9, dtype=np.int64), np.array(3, dtype=np.int64)), {}, 20),
    ("Expand", (floats(4, 1, 6), whole(2, 1, 7, 1)), {}, 20),
    ("Tile", (X, whole(1, 2, 1, 1)), {}, 20),
    ("Pad", (X, whole(0, 1, 2, 0, 0, 0, 1, 3), np.float32(0.5)), {}, 20),
    ("Pad", (X, whole(2, 1), None, whole(-1)), {"mode": "reflect"}, 20),
    ("Pad", (X, whole(1, 1, 2, 2), None, whole(2, 3)), {"mode": "edge"}, 20),
    ("Pad", (X,), {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": 0.25}, 9),
    ("Resize", (X, None, np.array([1, 1, 2, 2], dtype=np.float32)), {"mode": "linear"}, 20),
    ("Resize", (X, None, None, whole(2, 4, 9, 9)), {"mode": "cubic", "cubic_coeff_a": -0.75}, 20),
    (
        "Resize",
        (X, None, None, whole(2, 4, 14, 12)),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        20,
    ),
    (
        "Resize",
        (X, None, np.array([1, 1, 2, 2], dtype=np.float32)),
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        20,
    ),
    ("Upsample", (X, np.array([1, 1, 2, 2], dtype=np.float32)), {"mode": "nearest"}, 9),
    ("DepthToSpace", (X,), {"blocksize": 2}, 20),
    ("DepthToSpace", (X,), {"blocksize": 2, "mode": "CRD"}, 20),
    ("ArgMax", (X,), {"axis": 1, "keepdims": 0}, 20),
    *[
        (f"Reduce{name}", (X, whole(-1, 2)), {"keepdims": 0}, 20)
        for name in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min")
    ],
    *[(f"Reduce{name}", (X, whole(1, 3)), {}, 20) for name in ("Prod", "Sum", "SumSquare")],
    ("ReduceMean", (X,), {"axes": [1]}, 11),
    ("ReduceSum", (X,), {}, 20),
    ("ReduceSum", (X,), {"noop_with_empty_axes": 1}, 20),
]


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "opset"), CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_an_operator_gives_what_onnxruntime_gives(name, inputs, attributes, opset):
    names = [f"i{place}" if one is not None else "" for place, one in enumerate(inputs)]
    outputs = [f"o{place}" for place in range(2 if name == "Split" else 1)]
    given = {name: np.asarray(one) for name, one in zip(names, inputs, strict=True) if one is not None}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(one.dtype), one.shape)
        for name, one in given.items()
    ]
    node = helper.make_node(name, names, outputs, **attributes)
    # Without a type, the runtime infers what each output is.
    expected = run(model_of([node], values, [onnx.ValueInfoProto(name=one) for one in outputs], opset=opset), given)
    known = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if hasattr(known.get("value"), "raw_data"):
        known["value"] = torch.from_numpy(numpy_helper.to_array(known["value"]).copy())
    tensors = [None if one is None else torch.from_numpy(np.asarray(one).copy()) for one in inputs]
    found = OPERATORS[name](OnnxCall(name, tensors, known, opset, len(outputs)))
    for ours, theirs in zip(found if isinstance(found, list) else [found], expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-4, atol=2e-5)


def test_every_operator_is_compared_with_onnxruntime():
    assert set(OPERATORS) == {name for name, *_ in CASES}


@pytest.mark.parametrize(
    ("name", "inputs", "attributes"),
    [
        ("BatchNormalization", (X, *[floats(4)] * 4), {"training_mode": 1}),
        ("Resize", (X, None, np.array([1, 1, 2, 2], dtype=np.float32)), {"mode": "nearest"}),
        ("AveragePool", (X,), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("Cast", (X,), {"to": 8}),
    ],
)
def test_a_use_of_an_operator_that_is_not_converted_is_said(name, inputs, attributes):
    tensors = [None if one is None else torch.from_numpy(one) for one in inputs]
    with pytest.raises(NotImplementedError, match=name):
        OPERATORS[name](OnnxCall(name, tensors, attributes, 20))


# --- whole networks ---


def network(folder, name="net.onnx", *, batch="n", tail=(), reshape=None):
    """Conv, batch normalisation, ReLU, pooling with padding on one side, and a linear layer; then `tail`."""
    weights = [
        ("w", floats(4, 3, 3, 3)),
        *[(one, POSITIVE[0, :, 0, 0]) for one in ("scale", "shift", "mean", "var")],
        ("v", floats(5, 64)),
        ("b", floats(5)),
        *([("shape", whole(*reshape))] if reshape else []),
    ]
    flat = helper.make_node("Reshape", ["p", "shape"], ["f"]) if reshape else helper.make_node("Flatten", ["p"], ["f"])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        flat,
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], transB=1),
        *tail,
    ]
    classes = bool(tail) and tail[-1].op_type == "ArgMax"
    last = helper.make_tensor_value_info(
        tail[-1].output[0] if tail else "y", 7 if classes else 1, [batch, 5][: 2 - classes]
    )
    model = model_of(nodes, [helper.make_tensor_value_info("x", 1, [batch, 3, 8, 8])], [last], weights)
    onnx.save(model, str(folder / name))
    return folder / name


def runtimes_answer(path, images):
    (found,) = run(onnx.load(str(path)), {"x": images.numpy()})
    return torch.from_numpy(found)


def test_a_file_becomes_a_model_with_gradients_and_the_runtimes_answers(tmp_path):
    path = network(tmp_path)
    loaded = load_model(f"onnx:{path}")
    images = IMAGES.clone().requires_grad_()
    logits = loaded.module(images)
    torch.testing.assert_close(logits.detach(), runtimes_answer(path, IMAGES), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images)
    nudge = 1e-3 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    change = runtimes_answer(path, IMAGES + nudge)[:, 0] - runtimes_answer(path, IMAGES - nudge)[:, 0]
    torch.testing.assert_close(2 * (gradient * nudge).flatten(1).sum(1), change, rtol=0.05, atol=5e-3)
    assert check_model(loaded.module, IMAGES, classes=5) == []
    assert loaded.access == "white-box"
    assert loaded.card.input_size == (3, 8, 8)
    assert len(loaded.card.sha256) == 64


def test_a_file_is_named_without_its_kind_too_and_other_weights_are_other_models(tmp_path):
    first, second = load_model(str(network(tmp_path))), load_model(str(network(tmp_path, "other.onnx")))
    assert first.digest != second.digest
    assert first.source_digest != second.source_digest
    with pytest.raises(ModelError, match="contains its weights"):
        load_model(str(tmp_path / "net.onnx"), weights=tmp_path / "w.pt")


@pytest.mark.parametrize("reshape", [None, (2, 64)])
def test_a_file_for_so_many_images_at_once_takes_any_number(tmp_path, reshape):
    path = network(tmp_path, batch=2, reshape=reshape)
    loaded = load_model(str(path))
    # Where the graph itself does not depend on the number, all go through at once.
    assert loaded.module.model.batch == (2 if reshape else None)
    expected = torch.cat([runtimes_answer(path, IMAGES[[i, i]])[:1] for i in range(5)])
    torch.testing.assert_close(loaded.module(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_a_softmax_at_the_end_is_left_out(tmp_path):
    path = network(tmp_path, tail=[helper.make_node("Softmax", ["y"], ["z"], axis=1)])
    loaded = load_model(str(path))
    assert check_model(loaded.module, IMAGES) == []
    torch.testing.assert_close(loaded.module(IMAGES).softmax(1), runtimes_answer(path, IMAGES), rtol=1e-4, atol=1e-5)


def test_a_file_with_channels_last_is_given_them_so(tmp_path):
    turned = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), helper.make_node("Flatten", ["t"], ["f"])]
    nodes = [*turned, helper.make_node("MatMul", ["f", "w"], ["y"])]
    values = [helper.make_tensor_value_info("x", 1, ["n", 8, 8, 3])]
    outputs = [helper.make_tensor_value_info("y", 1, ["n", 5])]
    weight = floats(192, 5)
    onnx.save(model_of(nodes, values, outputs, [("w", weight)]), str(tmp_path / "last.onnx"))
    loaded = load_model(str(tmp_path / "last.onnx"))
    expected = IMAGES.flatten(1) @ torch.from_numpy(weight)
    torch.testing.assert_close(loaded.module(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert loaded.card.input_size == (3, 8, 8)


def test_an_operator_that_is_not_converted_is_named_with_the_way_out(tmp_path):
    tail = [helper.make_node("Hardmax", ["y"], ["h"]), helper.make_node("Sinh", ["h"], ["z"])]
    path = network(tmp_path, tail=tail)
    with pytest.raises(ModelError, match=r"not converted to torch: Hardmax, Sinh; .* as onnx-blackbox:"):
        load_model(str(path))
    scores = load_model(f"onnx-blackbox:{path}")
    assert scores.access == "scores"
    torch.testing.assert_close(scores.module(IMAGES), runtimes_answer(path, IMAGES))
    assert [flag.name for flag in check_model(scores.module, IMAGES)] == ["black-box-access"]


def test_a_conversion_that_does_not_answer_as_the_runtime_is_refused(tmp_path, monkeypatch):
    path = network(tmp_path)
    wrong = {**OPERATORS, "Relu": lambda call: call[0].clamp_min(0.1)}
    monkeypatch.setattr("gauntlet.bench.models.sources.onnx_network.OPERATORS", wrong)
    with pytest.raises(ModelError, match=r"disagrees with onnxruntime \(outputs differ by"):
        load_model(str(path))


def test_a_file_that_gives_classes_is_attacked_as_such(tmp_path):
    path = network(tmp_path, tail=[helper.make_node("ArgMax", ["y"], ["z"], axis=1, keepdims=0)])
    with pytest.raises(ModelError, match=r"as onnx-blackbox:.*\(classes=K\)"):
        load_model(str(path))
    loaded = load_model(f"onnx-blackbox:{path}(classes=5, max_queries=7)")
    assert loaded.access == "labels"
    assert loaded.module(IMAGES).argmax(1).tolist() == runtimes_answer(path, IMAGES).tolist()
    with pytest.raises(ModelError, match="max_queries=7"):
        loaded.module(1 - IMAGES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[: len(raw) // 2], "is damaged, or not an ONNX file"),
        (lambda raw: b"", "is empty"),
        (lambda raw: b"<html>not found</html>", "holds a web page"),
        (lambda raw: b"something else", "is damaged, or not an ONNX file"),
    ],
)
def test_a_file_that_is_no_onnx_is_told_in_a_sentence(tmp_path, change, message):
    path = network(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    for kind in ("onnx", "onnx-blackbox"):
        with pytest.raises(ModelError, match=message) as caught:
            load_model(f"{kind}:{path}")
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_classifier_of_images_is_told(tmp_path):
    with pytest.raises(ModelError, match="is not there"):
        load_model(str(tmp_path / "absent.onnx"))
    two = [helper.make_tensor_value_info(name, 1, ["n", 3, 8, 8]) for name in "xy"]
    one = [helper.make_tensor_value_info("z", 1, ["n", 3, 8, 8])]
    onnx.save(model_of([helper.make_node("Add", ["x", "y"], ["z"])], two, one), str(tmp_path / "two.onnx"))
    with pytest.raises(ModelError, match=r"has 2 inputs \(x, y\)"):
        load_model(str(tmp_path / "two.onnx"))
    onnx.save(model_of([helper.make_node("Relu", ["x"], ["z"])], two[:1], one), str(tmp_path / "image.onnx"))
    with pytest.raises(ModelError, match=r"returns \(3, 3, 8, 8\)"):
        load_model(str(tmp_path / "image.onnx"))
    half = [helper.make_tensor_value_info("x", 10, ["n", 3, 8, 8])]
    out = [helper.make_tensor_value_info("z", 10, ["n", 192])]
    onnx.save(model_of([helper.make_node("Flatten", ["x"], ["z"])], half, out), str(tmp_path / "half.onnx"))
    with pytest.raises(ModelError, match="has an input of another type than float32"):
        load_model(str(tmp_path / "half.onnx"))
    text = [helper.make_tensor_value_info("x", 1, ["n", 20])]
    onnx.save(model_of([helper.make_node("Relu", ["x"], ["z"])], text, text[:0] + out), str(tmp_path / "text.onnx"))
    with pytest.raises(ModelError, match=r"has an input of 2 dimensions, but images have 4|is damaged"):
        load_model(str(tmp_path / "text.onnx"))
