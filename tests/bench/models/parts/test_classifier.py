"""The classifier around a model: logits, normalisation, precision, and the checks of a model."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from builders import network
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.parts.model_digest import model_digest

IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear():
    return network(48, 5)


class Returning(nn.Module):
    """Gives its logits in a shape of the caller's choosing."""

    def __init__(self, wrap):
        super().__init__()
        self.linear = nn.Linear(48, 5)
        self.wrap = wrap
        self.eval()

    def forward(self, x):
        return self.wrap(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: z,
        lambda z: (z, "features"),
        lambda z: [z, z * 2],
        lambda z: {"features": z * 2, "logits": z},
        lambda z: {"out": z, "name": "x"},
        lambda z: SimpleNamespace(logits=z),
        lambda z: collections.namedtuple("Output", ["aux", "logits"])(z * 2, z),
    ],
)
def test_logits_are_found_in_every_common_output(wrap):
    model = Returning(wrap)
    assert torch.equal(Classifier(model)(IMAGES), model.linear(IMAGES.flatten(1)))


@pytest.mark.parametrize("wrap", [lambda z: {"a": z, "b": z}, lambda z: None, lambda z: ()])
def test_an_output_without_recognisable_logits_is_refused(wrap):
    with pytest.raises(ModelError, match="no logits are found"):
        Classifier(Returning(wrap))(IMAGES)


def test_normalisation_is_per_channel_and_in_the_digest(linear):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalised = (IMAGES - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.equal(Classifier(linear, mean, std)(IMAGES), linear(normalised))
    assert model_digest(Classifier(linear, mean, std)) != model_digest(Classifier(linear))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (None, (0.5, 0.0, 0.5), "std=.* must be positive"),
        ((0.1, float("nan"), 0.1), None, "mean=.* must be finite"),
        ((0.1,) * 3, (0.5,), "differ in length"),
    ],
)
def test_a_normalisation_that_cannot_be_one_is_refused(linear, mean, std, message):
    with pytest.raises(ModelError, match=message):
        Classifier(linear, mean, std)


def test_a_normalisation_for_other_channels_is_refused_with_the_numbers(linear):
    with pytest.raises(
        ModelError, match="mean has 2 values, but the images have 3 channels: give 1 value, or 3, one for"
    ):
        Classifier(linear, (0.1, 0.2), (0.5, 0.5))(IMAGES)


def test_images_are_cast_to_the_models_own_precision(linear):
    assert Classifier(linear)(IMAGES.double()).dtype == torch.float32
    assert Classifier(linear.double())(IMAGES).dtype == torch.float64


def test_weights_in_a_format_for_storage_are_refused_with_the_way_out(linear):
    with pytest.raises(ModelError, match=r"holds .* in torch.float8_e4m3fn, .* call model\.float\(\)"):
        Classifier(linear.to(torch.float8_e4m3fn))


def test_a_sound_model_passes_without_flags(linear):
    assert check_model(Classifier(linear), IMAGES, torch.arange(5), classes=5) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("returned", [torch.float32, None])
def test_logits_of_half_precision_are_flagged_in_whatever_dtype_they_are_returned(dtype, returned):
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    rounding = Classifier(Returning(lambda logits: logits.to(dtype).to(returned or dtype)))
    (flag,) = check_model(rounding, images)
    assert (flag.name, flag.severity, flag.needs) == ("coarse-logits", "warn", ())
    assert f"precision of {str(dtype)[6:]}, {8 if dtype == torch.bfloat16 else 11} binary digits" in flag.message
    assert check_model(Classifier(Returning(lambda logits: logits)), images) == []


def test_shares_of_votes_are_not_taken_for_half_precision():
    images = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shares = Returning(lambda logits: (60 * logits.tanh()).round() / 64)
    assert len(shares(images).unique()) > 40
    assert check_model(Classifier(shares), images) == []


def test_a_model_in_training_mode_is_refused(linear):
    with pytest.raises(ModelError, match=r"training mode: call model\.eval\(\)"):
        check_model(Classifier(linear.train()), IMAGES)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(5)])
def test_a_single_layer_in_training_mode_is_refused_by_name(linear, layer):
    model = nn.Sequential(linear, layer).eval()
    layer.train()
    with pytest.raises(ModelError, match=r"^1 is in training mode"):
        check_model(Classifier(model), IMAGES)


def test_nan_logits_are_refused_with_their_sample():
    def plant(logits):
        return logits.masked_fill((torch.arange(6) == 4)[:, None], float("nan"))

    with pytest.raises(ModelError, match="image 4 of 6 with NaN or infinite"):
        check_model(Classifier(Returning(plant)), IMAGES)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda z: z[:, :, None], r"returns shape \(6, 5, 1\)"),
        (lambda z: z.mean(0), r"returns shape \(5,\)"),
        (lambda z: z[:3], r"shape \(3, 5\) for 6 images"),
        (lambda z: z[:, :4], "4 outputs, but the data need 5 classes"),
        (lambda z: z.argsort(1), "not the predicted classes"),
    ],
)
def test_outputs_that_are_not_logits_of_the_data_are_refused(wrap, message):
    with pytest.raises(ModelError, match=message):
        check_model(Classifier(Returning(wrap)), IMAGES, torch.arange(5))


def test_too_few_outputs_for_the_classes_are_refused(linear):
    with pytest.raises(ModelError, match="5 outputs, but the data need 7"):
        check_model(Classifier(linear), IMAGES, torch.zeros(6, dtype=torch.int64), classes=7)


def test_labels_that_count_from_one_are_named_where_one_class_is_too_many(linear):
    with pytest.raises(ModelError, match=r"need 6 classes: check both \(labels count from 0: .* subtract 1\)"):
        check_model(Classifier(linear), IMAGES, torch.arange(6))


def test_a_model_that_fails_on_the_images_is_refused_with_their_shape(linear):
    with pytest.raises(ModelError, match=r"fails on images of shape \(6, 3, 5, 5\)"):
        check_model(Classifier(linear), torch.rand(6, 3, 5, 5))


def test_probabilities_are_flagged_and_block_the_rank():
    (flag,) = check_model(Classifier(Returning(lambda z: z.softmax(1))), IMAGES)
    assert (flag.name, flag.severity) == ("probabilities", "block")
    assert check_model(Classifier(Returning(lambda z: z.log_softmax(1))), IMAGES) == []


def test_the_digest_sees_one_changed_weight_and_a_buffer(linear):
    before = model_digest(linear)
    assert model_digest(linear) == before
    with torch.no_grad():
        linear[1].weight[0, 0] += 1e-6
    changed = model_digest(linear)
    linear.register_buffer("scale", torch.ones(1), persistent=False)
    assert len({before, changed, model_digest(linear)}) == 3


@pytest.mark.parametrize("axis", [1, 2])
def test_signals_are_normalised_by_their_channels(axis):
    signals = torch.rand(5, 2, 7, generator=torch.Generator().manual_seed(0))

    class Summing(nn.Module):
        def forward(self, x):
            if x.ndim != 3:
                raise ValueError("signals (N, C, L) are needed")
            return x.flatten(1)[:, [0, 7]]

    model = Classifier(Summing().eval(), (0.1, 0.3), (0.5, 0.25))
    check_model(model, signals.unsqueeze(axis))
    wanted = (signals[:, :, 0] - torch.tensor([0.1, 0.3])) / torch.tensor([0.5, 0.25])
    assert torch.allclose(model(signals.unsqueeze(axis)), wanted)


def test_a_model_that_takes_neither_images_nor_signals_keeps_its_own_error():
    with pytest.raises(ModelError, match=r"fails on images of shape \(5, 1, 4, 4\).*mat1 and mat2"):
        check_model(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).eval()), torch.rand(5, 1, 4, 4))
