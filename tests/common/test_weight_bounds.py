"""What a weight may be, by the last part of its tensor's name."""

import math

import numpy as np

from common.layout import Layout
from common.methods.contract import Contract
from common.methods.fednas import FedNAS
from common.methods.training import weight_bounds, weights_spec

LAYOUT = Layout(("conv.weight", "norm.running_var", "alphas", "old_running_var"), ((2, 1), (3,), (2,), (1,)))


def test_every_value_of_a_tensor_has_its_limits_and_other_values_have_none() -> None:
    low, high = weight_bounds(LAYOUT, {"running_var": (0.0, math.inf), "alphas": (-20.0, 20.0)})
    assert np.array_equal(low, np.array([-math.inf] * 2 + [0] * 3 + [-20] * 2 + [-math.inf], np.float32))
    assert np.array_equal(high, np.array([math.inf] * 5 + [20] * 2 + [math.inf], np.float32))


def test_a_side_that_nothing_bounds_is_one_number_which_admission_passes_over() -> None:
    low, high = weight_bounds(LAYOUT, Contract.weight_limits)
    assert isinstance(low, np.ndarray)
    assert high == math.inf
    assert weight_bounds(Layout(("weight",), ((4,),)), Contract.weight_limits) == (-math.inf, math.inf)


def test_a_method_adds_its_own_limits() -> None:
    sent = np.zeros(8, np.float32)
    low, high = weight_bounds(LAYOUT, FedNAS.weight_limits)
    spec = weights_spec(LAYOUT, sent, limits=FedNAS.weight_limits)
    assert np.array_equal(spec.low, low)
    assert np.array_equal(spec.high, high)
    assert np.flatnonzero(np.isfinite(high)).tolist() == [5, 6]
