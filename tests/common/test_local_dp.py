"""The noise of local differential privacy, by hand."""

import math

import numpy as np
import pytest

from common.groups import FederationSettings
from common.layout import Layout
from common.local_dp import largest_private_update, noise_deviation
from common.methods.training import weights_spec

SETTINGS = FederationSettings(local_dp_clipping_norm=0.5, local_dp_epsilon=0.1, local_dp_delta=1e-5)
SIGMA = 2 * 0.5 * math.sqrt(2 * math.log(125_000)) / 0.1
LAYOUT = Layout(("weight",), ((400,),))


def test_the_deviation_is_that_of_the_gaussian_mechanism() -> None:
    assert noise_deviation(SETTINGS) == pytest.approx(SIGMA)
    assert pytest.approx(48.4482, rel=1e-5) == SIGMA


def test_the_limit_of_the_norm_has_room_for_the_clipped_update_and_its_noise() -> None:
    room = largest_private_update(SETTINGS, 400)
    assert room == pytest.approx(0.5 + 3 * SIGMA * 20)
    sent = np.full(400, 0.5, np.float32)  # of norm 10
    assert weights_spec(LAYOUT, sent, room).largest_norm == pytest.approx(10_000 + room)
    noised = sent + SIGMA * np.random.default_rng(0).standard_normal(400).astype(np.float32)
    assert np.linalg.norm(noised - sent) < room / 2


def test_without_it_there_is_no_noise_and_no_room() -> None:
    assert noise_deviation(FederationSettings()) == 0
    assert largest_private_update(FederationSettings(), 10**6) == 0
