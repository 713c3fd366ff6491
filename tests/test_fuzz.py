"""Random calls return, or raise, as documented; `python -m tests.fuzz` makes many more."""

import fastloss as fl
from tests import fuzz
from tests.random_calls import CASES


def test_every_loss_is_called():
    losses = {name for name in fl.losses.__all__ if isinstance(getattr(fl, name), fl._binding.Loss)}
    assert {*losses, "_posteriors"} == set(CASES)


def test_random_calls(capsys):
    assert fuzz.main(["--calls", "2000", "--seed", "1"]) == 0, capsys.readouterr().out
