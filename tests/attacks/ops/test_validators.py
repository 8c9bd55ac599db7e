"""Validators of settings: what they accept, and the sentence that refuses the rest."""

import math

import numpy as np
import pytest

from gauntlet.attacks.ops.validators import boolean, number, one_of, positive, share, whole_number


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: whole_number("steps", 0, 1), "steps=0 must be a whole number of at least 1"),
        (lambda: whole_number("steps", 2.0, 1), "steps=2.0 must be a whole number of at least 1"),
        (lambda: whole_number("steps", True, 1), "steps=True must be a whole number of at least 1"),
        (lambda: whole_number("bits", 9, 1, 8), "bits=9 must be a whole number from 1 to 8"),
        (lambda: number("decay", -1, least=0), "decay=-1 must be a finite number, at least 0"),
        (lambda: number("gamma", 1.0, above=0, below=1), "gamma=1.0 must be a finite number, above 0 and below 1"),
        (lambda: number("any", math.inf), "any=inf must be a finite number"),
        (lambda: number("any", "3"), "any='3' must be a finite number"),
        (lambda: number("any", False), "any=False must be a finite number"),
        (lambda: positive("lr", math.nan), "lr=nan must be a finite number, above 0"),
        (lambda: share("rho", 1.5), "rho=1.5 must be a finite number, above 0 and at most 1"),
        (lambda: boolean("flip", 1), "flip=1 must be True or False"),
        (lambda: one_of("loss", "hinge", ("ce", "cw")), "loss='hinge' is not known: use one of ce, cw"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_name_value_and_bounds(call, sentence):
    with pytest.raises(ValueError) as refused:
        call()
    assert str(refused.value) == sentence


def test_settings_at_the_bounds_are_accepted():
    whole_number("steps", 1, 1)
    whole_number("bits", 8, 1, 8)
    number("decay", 0, least=0, most=0)
    number("decay", np.float32(0.5), least=0)
    positive("lr", 5e-324)
    share("rho", 1)
    boolean("flip", False)
    one_of("loss", "cw", {"ce": 0, "cw": 1})
