"""Threads that come and go while others compute, under an OpenMP runtime that lends workers in
changing numbers and checks which of them the library moves to other processors."""

import sys

import pytest

import fastloss as fl
from tests.preloaded import run_module

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.skipif(
        fl.show_config("dicts")["openmp"].startswith("none"), reason="built without OpenMP"
    ),
]


@pytest.mark.complete_only
def test_stress_of_threads(complete):
    run_module("tests.race_stress", "--seconds", "20" if complete else "3", preload="openmp")
