"""ONNX files that ask for more than a model: refused in a sentence before onnxruntime has seen them."""

from __future__ import annotations

import numpy as np
import pytest

from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError
from gauntlet.bench.models.sources import onnx_safety

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
WEIGHT = np.random.default_rng(0).normal(size=(192, 5)).astype(np.float32)
KINDS = ["onnx", "onnx-blackbox"]


def graph(extra=(), *, weights=(), last="y"):
    """A linear model of images (N, 3, 8, 8), with more nodes after it."""
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"]), *extra]
    held = [numpy_helper.from_array(WEIGHT, "w"), *(numpy_helper.from_array(value, name) for name, value in weights)]
    images, logits = (
        helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", ["n", 3, 8, 8]), (last, ["n", 5]))
    )
    return helper.make_graph(nodes, "g", [images], [logits], held)


def model(built, functions=(), domains=("",)):
    imports = [helper.make_opsetid(domain, 20 if domain == "" else 1) for domain in domains]
    return helper.make_model(built, opset_imports=imports, ir_version=9, functions=list(functions))


@pytest.fixture
def unseen(monkeypatch):
    """onnxruntime fails a test that lets it see the file."""

    def seen(*args, **kwargs):
        raise AssertionError("onnxruntime was given the file")

    monkeypatch.setattr(runtime, "InferenceSession", seen)


def refused(path, said):
    for kind in KINDS:
        with pytest.raises(ModelError, match=said) as caught:
            load_model(f"{kind}:{path}")
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_a_plain_model_and_one_with_its_weights_beside_it_are_loaded(tmp_path):
    onnx.save(model(graph()), tmp_path / "plain.onnx")
    onnx.save(model(graph()), tmp_path / "beside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "w.bin").stat().st_size >= WEIGHT.nbytes
    for kind in KINDS:
        for name in ("plain", "beside"):
            assert load_model(f"{kind}:{tmp_path / name}.onnx").module is not None


@pytest.mark.parametrize("domain", ["evil.ops", "ai.onnx.training", "com.example"])
def test_operators_of_other_domains_are_refused(tmp_path, unseen, domain):
    extra = [helper.make_node("Run", ["y"], ["z"], domain=domain)]
    onnx.save(model(graph(extra, last="z"), domains=("", domain)), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", rf"operator {domain}\.Run is of no domain")


def test_operators_within_branches_and_functions_are_looked_at(tmp_path, unseen):
    inner = helper.make_graph(
        [helper.make_node("Run", ["y"], ["b"], domain="evil.ops")],
        "b",
        [],
        [helper.make_tensor_value_info("b", 1, None)],
    )
    choice = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    onnx.save(
        model(graph([choice], weights=[("c", np.array(True))], last="z"), domains=("", "evil.ops")),
        tmp_path / "if.onnx",
    )
    refused(tmp_path / "if.onnx", r"evil\.ops\.Run")
    body = helper.make_function(
        "mine",
        "Call",
        ["a"],
        ["b"],
        [helper.make_node("Run", ["a"], ["b"], domain="evil.ops")],
        [helper.make_opsetid("evil.ops", 1)],
    )
    called = graph([helper.make_node("Call", ["y"], ["z"], domain="mine")], last="z")
    onnx.save(model(called, [body], ("", "mine", "evil.ops")), tmp_path / "function.onnx")
    refused(tmp_path / "function.onnx", r"evil\.ops\.Run")


def test_operators_of_the_runtime_that_read_other_files_are_refused(tmp_path, unseen):
    extra = [helper.make_node("EPContext", ["y"], ["z"], domain="com.microsoft", ep_cache_context="../secret")]
    onnx.save(model(graph(extra, last="z"), domains=("", "com.microsoft")), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", "EPContext reads other files")


def test_an_operator_that_does_not_exist_is_refused(tmp_path, unseen):
    onnx.save(model(graph([helper.make_node("Nonsense", ["y"], ["z"])], last="z")), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", "Nonsense is not one of the standard")


def test_an_operator_that_is_not_converted_is_told_before_the_runtime_sees_the_file(tmp_path, unseen):
    onnx.save(model(graph([helper.make_node("Hardmax", ["y"], ["z"])], last="z")), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="not converted to torch: Hardmax"):
        load_model(f"onnx:{tmp_path / 'net.onnx'}")


def test_own_functions_are_unrolled_and_loaded(tmp_path):
    body = helper.make_function(
        "mine", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    called = graph([helper.make_node("Double", ["y"], ["z"], domain="mine")], last="z")
    onnx.save(model(called, [body], ("", "mine")), tmp_path / "net.onnx")
    assert load_model(f"onnx:{tmp_path / 'net.onnx'}").module is not None


def test_functions_that_unroll_to_too_many_nodes_are_refused(tmp_path, unseen):
    functions = [
        helper.make_function(
            "mine", "F0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 20)]
        )
    ]
    for level in range(1, 40):
        calls = [
            helper.make_node(f"F{level - 1}", [first], [second], domain="mine")
            for first, second in (("a", "m"), ("m", "b"))
        ]
        functions.append(
            helper.make_function("mine", f"F{level}", ["a"], ["b"], calls, [helper.make_opsetid("mine", 1)])
        )
    called = graph([helper.make_node("F39", ["y"], ["z"], domain="mine")], last="z")
    onnx.save(model(called, functions, ("", "mine")), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", f"more than {onnx_safety.MOST_NODES} nodes once its functions are unrolled")


def test_a_function_does_not_hide_behind_another_of_its_name_with_another_overload(tmp_path, unseen):
    doubled = [
        helper.make_function(
            "mine", "F0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 20)]
        )
    ]
    for level in range(1, 40):
        calls = [
            helper.make_node(f"F{level - 1}", [first], [second], domain="mine", overload="" if level == 1 else "long")
            for first, second in (("a", "m"), ("m", "b"))
        ]
        imports = [helper.make_opsetid("mine", 1)]
        doubled.append(helper.make_function("mine", f"F{level}", ["a"], ["b"], calls, imports, overload="long"))
        # Without overloads this one stands for the other, and unrolls to a single node.
        short = [helper.make_node("Neg", ["a"], ["b"])]
        doubled.append(helper.make_function("mine", f"F{level}", ["a"], ["b"], short, [helper.make_opsetid("", 20)]))
    called = graph([helper.make_node("F39", ["y"], ["z"], domain="mine", overload="long")], last="z")
    whole = model(called, doubled, ("", "mine"))
    whole.ir_version = 10
    onnx.save(whole, tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", f"more than {onnx_safety.MOST_NODES} nodes once its functions are unrolled")


def test_functions_in_the_standard_domain_are_found_under_both_of_its_names(tmp_path, unseen):
    body = helper.make_function(
        "ai.onnx", "Own", ["a"], ["b"], [helper.make_node("Own", ["a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    onnx.save(model(graph([helper.make_node("Own", ["y"], ["z"])], last="z"), [body]), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", "calls itself")


def test_a_function_that_calls_itself_is_refused(tmp_path, unseen):
    body = helper.make_function(
        "mine",
        "F",
        ["a"],
        ["b"],
        [helper.make_node("F", ["a"], ["b"], domain="mine")],
        [helper.make_opsetid("mine", 1)],
    )
    called = graph([helper.make_node("F", ["y"], ["z"], domain="mine")], last="z")
    onnx.save(model(called, [body], ("", "mine")), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", "calls itself")


def external(tmp_path, **entries):
    """The model, whose weight is said to be in another file."""
    built = model(graph())
    (weight,) = built.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = 1
    for key, value in entries.items():
        weight.external_data.add(key=key, value=str(value))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(built.SerializeToString())
    return folder / "net.onnx"


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", ""])
def test_data_outside_the_folder_is_refused(tmp_path, unseen, location):
    (tmp_path / "secret.bin").write_bytes(bytes(WEIGHT.nbytes))
    refused(external(tmp_path, location=location), "names a file outside its folder")


def test_a_link_that_leads_outside_the_folder_is_refused(tmp_path, unseen):
    (tmp_path / "secret.bin").write_bytes(bytes(WEIGHT.nbytes))
    path = external(tmp_path, location="w.bin")
    (path.parent / "w.bin").symlink_to(tmp_path / "secret.bin")
    refused(path, "names a file outside its folder")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "none.bin"}, "which is not beside it"),
        ({"location": "w.bin", "offset": 8}, "from byte 8 on"),
        ({"location": "w.bin", "offset": -1}, "from byte -1 on"),
        ({"location": "w.bin", "length": 10**15}, "takes 1000000000000000 bytes"),
        ({"location": "w.bin", "offset": "much"}, "has no place in"),
    ],
)
def test_data_that_is_not_where_the_file_says_is_refused(tmp_path, unseen, entries, said):
    path = external(tmp_path, **entries)
    (path.parent / "w.bin").write_bytes(bytes(WEIGHT.nbytes))
    refused(path, said)


def test_a_tensor_that_claims_more_than_fits_is_refused(tmp_path, unseen):
    built = model(graph())
    del built.graph.initializer[0].dims[:]
    built.graph.initializer[0].dims.extend([10**6, 10**6])
    (tmp_path / "net.onnx").write_bytes(built.SerializeToString())
    refused(tmp_path / "net.onnx", r"tensor 'w' has 4000000000000 bytes .* at most")


def test_a_constant_that_is_to_be_filled_with_more_than_fits_is_refused(tmp_path, unseen):
    extra = [
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["one"], keepdims=0),
        helper.make_node("Add", ["y", "one"], ["z"]),
    ]
    shape = np.array([10**6, 10**6], dtype=np.int64)
    onnx.save(model(graph(extra, weights=[("s", shape)], last="z")), tmp_path / "net.onnx")
    refused(tmp_path / "net.onnx", "value 'big' of its graph has 4000000000000 bytes")


def test_a_file_beyond_the_limit_is_not_read(tmp_path, unseen):
    with (tmp_path / "net.onnx").open("wb") as file:
        file.write(b"something")
        file.truncate(2**31 + 1)
    refused(tmp_path / "net.onnx", "2147483649 bytes .* at most 2147483648")
