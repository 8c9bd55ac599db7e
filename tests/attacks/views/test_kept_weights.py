"""Guards that share copies of the weights: what is undone, and how often values are copied and compared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import gauntlet
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.kept_weights import weights_kept
from gauntlet.bench.speed.synchronisations import counted_synchronisations


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def in_place(model):
    with torch.no_grad():
        model[1].weight.add_(1)


def past_the_counter(model):
    model[1].weight.data.add_(1)


def by_numpy(model):
    model[4].bias.detach().numpy()[:] += 1


def to_other_memory(model):
    model[1].weight.data = torch.ones_like(model[1].weight)


def to_another_shape(model):
    model[1].bias.data = torch.ones(3)


def by_running_statistics(model):
    model.train()
    model(torch.rand(5, 1, 4, 4))


def to_another_tensor(model):
    model[4].weight = nn.Parameter(torch.ones(3, 8))


WRITES = [
    in_place,
    past_the_counter,
    by_numpy,
    to_other_memory,
    to_another_shape,
    by_running_statistics,
    to_another_tensor,
]
COUNTED = [in_place, to_other_memory, to_another_shape, to_another_tensor]


@pytest.mark.parametrize("write", WRITES)
def test_a_guard_undoes_every_write_at_once_outside_a_scope(write):
    model = network()
    before = values(model)
    with guarded(model, 0):
        write(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize("write", WRITES)
def test_writes_of_foreign_code_are_undone_at_once_within_a_scope(write):
    model = network()
    before = values(model)
    with weights_kept(model):
        with guarded(model, 0):
            pass
        with guarded(model, 0, foreign=True):
            write(model)
        assert_unchanged(model, before)


@pytest.mark.parametrize("write", WRITES)
def test_a_scope_undoes_at_its_end_what_guards_do_not_see(write):
    model = network()
    before = values(model)
    with weights_kept(model):
        with guarded(model, 0):
            write(model)
        if write in COUNTED:
            assert_unchanged(model, before)
    assert_unchanged(model, before)


def test_what_was_written_between_two_guards_stays():
    model = network()
    with weights_kept(model):
        with guarded(model, 0):
            pass
        in_place(model)
        before = values(model)
        with guarded(model, 0):
            in_place(model)
        assert_unchanged(model, before)
    assert_unchanged(model, before)


def test_scopes_may_end_in_another_order_than_they_began():
    model = network()
    before = values(model)
    first, second = weights_kept(model), weights_kept(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with guarded(model, 0):
        in_place(model)
    second.__exit__(None, None, None)
    assert_unchanged(model, before)


def test_weights_made_in_inference_mode_are_restored():
    with torch.inference_mode():
        model = network().requires_grad_(False)
    before = values(model)
    with weights_kept(model), torch.inference_mode():
        with guarded(model, 0), torch.inference_mode():
            model[1].weight.add_(1)
        assert_unchanged(model, before)


class CountedCopies(TorchFunctionMode):
    """Counts copies of a tensor, and comparisons with it."""

    def __init__(self, tensor):
        super().__init__()
        self.place, self.copies, self.comparisons = tensor.data_ptr(), 0, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if args and isinstance(args[0], Tensor) and args[0].data_ptr() == self.place:
            self.copies += func is Tensor.clone
            self.comparisons += func in (Tensor.ne, Tensor.__ne__, torch.ne, torch.equal)
        return func(*args, **(kwargs or {}))


def test_many_guards_of_a_scope_make_one_copy_and_one_comparison():
    model = network()
    with CountedCopies(model[1].weight) as counted, weights_kept(model):
        for seed in range(10):
            with guarded(model, seed), guarded(model, seed):
                in_place(model)
    assert (counted.copies, counted.comparisons) == (1, 1)


def test_guards_of_a_scope_make_the_host_wait_once():
    model = network()
    with counted_synchronisations() as counter, weights_kept(model):
        for seed in range(10):
            with guarded(model, seed):
                model(torch.rand(2, 1, 4, 4))
        assert counter.total == 0
    assert counter.total == 1


def test_a_cell_compares_the_weights_a_few_times_whatever_its_checks():
    model = network()
    images, labels = torch.rand(30, 1, 4, 4), torch.arange(30) % 3
    with CountedCopies(model[1].weight) as counted:
        gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="pgd(steps=2)", seed=0)
    # Of the chosen form, of dependence on the batch, of the checks, and of the attack.
    assert 0 < counted.comparisons <= 4
