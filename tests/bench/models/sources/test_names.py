"""Names that say where a model comes from, and how a plan completes them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gauntlet.bench.config.schema import Config, ConfigError, DataRef, Group, ModelRef
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.planning.plan import make_plan, model_name

CARMON = "robustbench:cifar10/Linf/Carmon2019Unlabeled"


# names


@pytest.mark.parametrize(
    ("spec", "title", "access"),
    [
        (CARMON, "robustbench:Carmon2019Unlabeled", "white-box"),
        ("robustbench:Carmon2019Unlabeled", "robustbench:Carmon2019Unlabeled", "white-box"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k", "white-box"),
        ("torchvision:resnet18.IMAGENET1K_V1", "torchvision:resnet18.IMAGENET1K_V1", "white-box"),
        ("hf:microsoft/resnet-18", "hf:microsoft/resnet-18", "white-box"),
        ("hf:./nets/mine", "hf:mine", "white-box"),
        ("onnx:nets/small.onnx", "onnx:small", "white-box"),
        ("nets/small.onnx", "onnx:small", "white-box"),
        ("onnx-blackbox:nets/small.onnx", "onnx-blackbox:small", "scores"),
        ("blackbox:nets/service.py:ask(classes=10)", "blackbox:service.ask", "labels"),
        ("blackbox:package.service:ask", "blackbox:package.service.ask", "scores"),
    ],
)
def test_a_name_says_where_a_model_comes_from_and_what_may_be_seen_of_it(spec, title, access):
    source = parse_source(spec)
    assert (source.title, source.access) == (title, access)
    assert model_name(ModelRef(spec)) == title
    assert model_name(ModelRef(spec, "deep/best.pt")) == f"{title}@best"


def test_limits_and_folders_are_no_part_of_what_decides_outcomes():
    pairs = [
        ("blackbox:a/service.py:ask(classes=10, max_queries=9)", "blackbox:b/service.py:ask(batch_size=3, classes=10)"),
        ("onnx:a/net.onnx", "b/other.onnx"),
        ("hf:./net", "hf:/somewhere/net"),
    ]
    for one, other in pairs:
        assert parse_source(one).identity == parse_source(other).identity
    others = [
        "blackbox:s.py:ask",
        "blackbox:s.py:ask(classes=10)",
        "blackbox:s.py:tell",
        "onnx:a.onnx",
        "timm:resnet18",
    ]
    names = [
        *others,
        "onnx-blackbox:a.onnx",
        "timm:resnet18(num_classes=10)",
        "hf:owner/net",
        "hf:owner/net@v1",
        CARMON,
    ]
    assert len({parse_source(name).identity for name in names}) == len(names)


@pytest.mark.parametrize("spec", ["cnn.pgd_digits", "model.py:build", "package.module:build", "./timm/net.py:make"])
def test_other_names_are_not_taken_for_sources(spec):
    assert parse_source(spec) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("robustbench:", "robustbench:DATASET/NORM/NAME"),
        ("robustbench:mnist/Linf/Some", "robustbench:DATASET/NORM/NAME"),
        ("robustbench:cifar10/Carmon2019Unlabeled", "robustbench:DATASET/NORM/NAME"),
        ("hf:resnet", "hf:OWNER/REPOSITORY"),
        ("hf:owner/", "hf:OWNER/REPOSITORY"),
        ("timm:resnet18(pretrained=False)", "has no setting 'pretrained': it has num_classes"),
        ("onnx:net.onnx(batch=3)", "has no setting 'batch': it has no settings"),
        ("blackbox:service.py", "blackbox:FILE.py:FUNCTION"),
    ],
)
def test_a_name_that_is_written_wrongly_is_answered_with_the_form(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_reading_names_and_figures_imports_no_torch():
    code = (
        "import sys; from gauntlet.bench.models.sources.parse_source import parse_source; "
        "from gauntlet.bench.models.sources.robustbench_figures import robustbench_card; "
        f"robustbench_card({CARMON.partition(':')[2]!r}); assert parse_source({CARMON!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# the plan


def planned(models, data, threats):
    group = Group(tuple(map(ModelRef, models)), ("none",), ("fgsm",), tuple(threats), DataRef(data))
    return make_plan(Config(groups=(group,)))


def test_a_robustbench_name_is_completed_by_the_data_set_and_the_norm_in_use():
    plan = planned(["robustbench:Some2020Thing"], "cifar10/robustbench-1000", ["Linf:8/255", "L2:0.5"])
    assert [one.model.spec for one in plan.cells] == [
        "robustbench:cifar10/Linf/Some2020Thing",
        "robustbench:cifar10/L2/Some2020Thing",
    ]
    # One name for two networks would join their rows.
    assert len({one.info.model for one in plan.cells}) == 2
    for data in ("imagenet", "imagenet/robustbench-5000", "imagenet@folder", "imagenet(split=train)"):
        assert complete_robustbench_name("robustbench:X", data, "Linf") == "robustbench:imagenet/Linf/X"
    assert complete_robustbench_name(CARMON, "digits", "L1") == CARMON
    assert complete_robustbench_name("timm:resnet18", "digits", "L1") == "timm:resnet18"


def test_where_data_or_norm_do_not_say_it_the_full_name_is_asked_for():
    for data, threat in (("digits", "Linf:0.1"), ("cifar10", "L1:2")):
        with pytest.raises(ModelError, match=r"is not complete on data .* write robustbench:DATASET/NORM/X"):
            planned(["robustbench:X"], data, [threat])


def test_a_source_is_planned_under_its_short_name_and_a_file_without_a_factory_still_is_not():
    (cell,) = planned(["timm:resnet18.a1_in1k"], "digits", ["Linf:0.1"]).cells
    assert (cell.model.spec, cell.info.model) == ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k")
    with pytest.raises(ConfigError, match="names a file only"):
        planned(["nets/model.py"], "digits", ["Linf:0.1"])
