"""Random calls return, or raise, as documented; `python -m tests.fuzz` makes many more."""

import fastloss as fl
from tests import fuzz
from tests.random_calls import CASES, is_loss


def test_every_loss_is_called():
    losses = {name for name, value in vars(fl.losses).items() if is_loss(value)}
    assert losses == set(CASES)


def test_random_calls(capsys):
    assert fuzz.main(["--calls", "2000", "--seed", "1"]) == 0, capsys.readouterr().out
