"""Losses as Python objects."""

import pickle

import fastloss as fl
from tests.cases import CASES


def test_losses_pickle_to_themselves():
    for name in dict.fromkeys(case.loss for case in CASES):
        loss = getattr(fl, name)
        assert pickle.loads(pickle.dumps(loss)) is loss
        assert loss.__name__ == name
        assert loss.__doc__
