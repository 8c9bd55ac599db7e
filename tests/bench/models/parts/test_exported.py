"""Programs of torch.export have the mode of their operations, and take any number of images."""

import copy

import pytest
import torch
from torch import nn

from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.parts.model_digest import model_digest

IMAGES = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def network(last: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), last or nn.Dropout(), nn.Linear(64, 3))


def exported(model: nn.Module, *, any_batch: bool = True) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    return torch.export.export(model, (IMAGES[:4],), dynamic_shapes=shapes).module()


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*deprecated:FutureWarning")
@pytest.mark.parametrize("inside", [False, True])
def test_a_program_exported_in_evaluation_mode_is_in_evaluation_mode(inside):
    program = exported(network().eval())
    classifier = Classifier(Holding(program) if inside else program)
    assert check_model(classifier, IMAGES) == []
    assert not classifier.eval().training
    assert torch.equal(classifier(IMAGES), copy.deepcopy(classifier)(IMAGES))


class Holding(nn.Module):
    """A module of the user's around a program; it cannot be switched, since the program refuses."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K)."""
        return self.program(images)


@pytest.mark.parametrize("last", [nn.Dropout(0.5), nn.BatchNorm1d(64)])
def test_a_program_exported_in_training_mode_is_refused(last):
    program = exported(network(last).train())
    with pytest.raises(ModelError, match=r"training mode: call model\.eval\(\) before"):
        check_model(Classifier(program), IMAGES)


def test_batch_norm_without_running_statistics_is_no_training_mode():
    program = exported(network(nn.BatchNorm1d(64, track_running_stats=False)).eval())
    assert not Classifier(program).training


def test_a_program_of_a_fixed_batch_takes_any_number_of_images():
    model = network().eval()
    classifier = Classifier(exported(model, any_batch=False))
    for count in (1, 4, 7):
        assert torch.allclose(classifier(IMAGES[:count]), model(IMAGES[:count]), atol=1e-6)


def test_the_digest_tells_programs_with_equal_weights_and_other_operations():
    one, other = network(nn.ReLU()).eval(), network(nn.Tanh()).eval()
    assert model_digest(one) == model_digest(other)
    assert model_digest(exported(one)) == model_digest(exported(one))
    assert model_digest(exported(one)) != model_digest(exported(other))
