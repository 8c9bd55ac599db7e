"""The view of a model towards a class: a problem of two classes."""

from __future__ import annotations

import torch

from gauntlet.attacks.views.targeted_view import towards


def test_two_class_logits_are_the_best_of_the_others_and_the_target():
    logits = torch.tensor([[1.0, -2.0, 3.0], [-5.0, -4.0, -9.0]])
    assert towards(logits, torch.tensor([2, 2])).tolist() == [[1.0, 3.0], [-4.0, -9.0]]


def test_being_misclassified_there_is_being_predicted_as_the_target_ties_included():
    # All rows of four small whole numbers: most have ties.
    grid = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * 4)
    for target in range(4):
        for logits in (grid, grid * 1e30, grid.half(), grid.bfloat16(), grid.double() * 1e-300):
            view = towards(logits, torch.full((len(logits),), target))
            assert torch.equal(view.argmax(1) != 0, logits.argmax(1) == target)


def test_a_tie_moves_the_other_logit_by_no_more_than_one_number():
    logits = torch.tensor([[7.0, 7.0, 0.0]])
    low, high = towards(logits, torch.tensor([0]))[0]
    assert high == 7
    assert low == torch.nextafter(high, torch.tensor(0.0))


def test_the_gradient_towards_a_class_is_that_of_the_margin_and_shared_by_tied_others():
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0], [4.0, 3.0, 3.0, 4.0]], requires_grad=True)
    view = towards(logits, torch.tensor([3, 0]))
    (gradient,) = torch.autograd.grad((view[:, 1] - view[:, 0]).sum(), logits)
    assert gradient.tolist() == [[0, -0.5, -0.5, 1], [1, 0, 0, -1]]
