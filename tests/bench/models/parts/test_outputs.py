"""Logits are read from what a model returns: by name, by place, and from one logit for two classes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.parts.outputs import Output

IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
SCORES = IMAGES.flatten(1)
FEATURES = torch.ones(6, 9)


class Returning(nn.Module):
    """A model that returns what a function makes of the scores (N, 4)."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make
        self.eval()

    def forward(self, images: torch.Tensor):
        """Anything."""
        return self.make(images.flatten(1))


RETURNED = {
    "dict": (lambda scores: {"features": FEATURES, "scores": scores}, "scores"),
    "object": (lambda scores: SimpleNamespace(features=FEATURES, scores=scores), "scores"),
    "tuple": (lambda scores: (FEATURES, scores), "1"),
    "list, from the end": (lambda scores: [FEATURES, scores], "-1"),
}


@pytest.mark.parametrize(("make", "key"), RETURNED.values(), ids=RETURNED)
def test_logits_are_read_by_their_name_or_place(make, key):
    assert torch.equal(Classifier(Returning(make), output=Output(key))(IMAGES), SCORES)


def test_the_error_of_a_dict_names_the_option_and_its_entries():
    with pytest.raises(ModelError, match=r"returns dict with features, scores, .* --logits features"):
        Classifier(Returning(RETURNED["dict"][0]))(IMAGES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            RETURNED["dict"][0],
            "returns dict with features, scores, without a tensor 'logit' .*: use one of features, scores",
        ),
        (RETURNED["tuple"][0], "returns tuple with 0, 1, without"),
        (lambda scores: scores, "returns Tensor, without .*: leave --logits out"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(make, message):
    with pytest.raises(ModelError, match=message):
        Classifier(Returning(make), output=Output("logit"))(IMAGES)


@pytest.mark.parametrize("keep", [False, True])
def test_one_logit_becomes_two_classes(keep):
    model = Returning(lambda scores: scores[:, :1] - 0.5 if keep else scores[:, 0] - 0.5)
    logits = Classifier(model, output=Output(binary=True))(IMAGES)
    single = SCORES[:, 0] - 0.5
    assert torch.equal(logits, torch.stack([-single, single], 1))
    assert torch.equal(logits.argmax(1), (single > 0).long())


@pytest.mark.parametrize("keep", [False, True])
def test_the_error_of_one_logit_names_the_option(keep):
    model = Returning(lambda scores: scores[:, :1] if keep else scores[:, 0])
    with pytest.raises(ModelError, match=r"if it is one logit for two classes, use --binary"):
        check_model(Classifier(model), IMAGES)


def test_a_model_with_more_outputs_is_not_binary():
    with pytest.raises(ModelError, match=r"of shape \(6, 4\), and --binary is for one logit"):
        Classifier(Returning(lambda scores: scores), output=Output(binary=True))(IMAGES)


def test_a_sigmoid_is_refused_where_a_logit_is_needed():
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    model = Classifier(Returning(lambda scores: scores[:, 0].sigmoid()), output=Output(binary=True))
    with pytest.raises(ModelError, match="return what goes into the sigmoid"):
        check_model(model, IMAGES, labels)


def test_both_settings_work_together():
    model = Returning(lambda scores: {"feature": FEATURES, "z": scores[:, :1] - 0.5})
    assert Classifier(model, output=Output("z", binary=True))(IMAGES).shape == (6, 2)
