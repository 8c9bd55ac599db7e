"""The attack of the training: one step from a random start."""

import torch
from torch.nn.functional import cross_entropy

EPS = 0.1


def fgsm(model, images, labels, eps=EPS):
    """Images within `eps` of the given ones in Linf, inside [0, 1], after one signed gradient step."""
    start = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(start), labels), start)
    moved = start.detach() + 1.25 * eps * gradient.sign()
    return torch.minimum(torch.maximum(moved, images - eps), images + eps).clamp(0, 1)
