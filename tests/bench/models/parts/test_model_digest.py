"""The digest of a model holds all that decides its answers: packed weights of quantised layers too."""

import copy
import io

import pytest
import torch
from torch import nn

from gauntlet.bench.models.parts.model_digest import model_digest

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
IMAGES = torch.rand(32, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Two layers, with the stubs that static quantisation needs."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        with torch.no_grad():
            self.body[3].weight.mul_(factor)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K)."""
        return self.after(self.body(self.before(images)))


def dynamically(network: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(network.eval(), {nn.Linear}, dtype=torch.qint8)


def statically(network: nn.Module) -> nn.Module:
    network.eval().qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(network, inplace=True)
    network(IMAGES)
    return torch.ao.quantization.convert(network)


@pytest.mark.parametrize("quantise", [dynamically, statically])
@pytest.mark.parametrize("scripted", [False, True])
def test_the_digest_holds_packed_weights(quantise, scripted):
    def digest(factor: float = 1.0) -> str:
        network = quantise(Network(factor))
        return model_digest(torch.jit.script(network) if scripted else network)

    assert digest() == digest()
    assert digest() != digest(-1.0), "weights that differ in the sign alone have the same scale"


def test_the_digest_of_a_quantised_script_is_that_of_its_file():
    script = torch.jit.script(dynamically(Network()))
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    assert model_digest(torch.jit.load(buffer)) == model_digest(torch.jit.load(io.BytesIO(buffer.getvalue())))


def test_the_digest_of_a_usual_model_is_that_of_its_copy():
    network = Network()
    assert model_digest(network) == model_digest(copy.deepcopy(network))
