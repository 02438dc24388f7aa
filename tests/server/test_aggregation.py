"""The mean of a cohort: the formula, and federated averaging as its special case."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.data import DeviceData
from client.methods.fedavg import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.arrays import Vector
from common.data.augment import Preprocessor
from common.data.images import Images
from common.messages import WEIGHTS, Task
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from server.aggregation import CohortMean, plausible_images


def averaged(mean: CohortMean) -> Vector | None:
    total = mean.result()
    return None if total is None else total.mean()


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_models_count_by_their_samples() -> None:
    mean = CohortMean()
    mean.fold(vector(1, -2), 1)
    mean.fold(vector(5, 2), 3)
    result = averaged(mean)
    assert result is not None
    assert result.dtype == np.float32
    assert result.tolist() == [4.0, 1.0]  # (1*1 + 3*5) / 4 and (1*-2 + 3*2) / 4


def test_without_a_model_there_is_no_mean() -> None:
    assert averaged(CohortMean()) is None


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 2**40))
def test_a_single_device_gets_its_own_model_back_bit_for_bit(values: list[float], samples: int) -> None:
    mean = CohortMean()
    mean.fold(vector(*values), samples)
    result = averaged(mean)
    assert result is not None
    assert result.tobytes() == vector(*values).tobytes()


def test_one_cohort_of_one_architecture_is_federated_averaging() -> None:
    """The plain loop of algorithm 1 of McMahan et al. 2017, written out, against our parts: equal in every bit."""
    architecture = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3))
    layout = architecture.layout
    generator = torch.Generator().manual_seed(1)
    preprocessor = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "crop")
    clients = {
        f"device-{number:02d}": Images(
            torch.randint(256, (size, 1, 8, 8), generator=generator, dtype=torch.uint8),
            torch.randint(3, (size,), generator=generator),
        )
        for number, size in enumerate((9, 14, 4))
    }
    ours = plain = layout.flatten(architecture.build(0).state_dict())
    for number in (1, 2):

        def trained(name: str, weights: np.ndarray, number: int = number) -> np.ndarray:
            order = TrainingOrder(batch_size=4, momentum=0.5).to_mapping()
            task = Task("fedavg", TRAIN, number, architecture, order, {WEIGHTS: weights}, seed=3)
            data = DeviceData(clients[name], None, preprocessor)
            return run_step(STEPS, task, data, name, torch.device("cpu")).arrays[WEIGHTS]

        total = sum(len(images) for images in clients.values())
        plain_sum = np.zeros(layout.size)
        for name, images in clients.items():
            plain_sum = plain_sum + len(images) * trained(name, plain).astype(np.float64)
        plain = (plain_sum / total).astype(np.float32)

        mean = CohortMean()
        for name in clients:
            mean.fold(trained(name, ours), len(clients[name]))
        result = averaged(mean)
        assert result is not None
        ours = result
    assert ours.tobytes() == plain.tobytes()
    assert not np.array_equal(ours, layout.flatten(architecture.build(0).state_dict()))


def test_a_device_answers_for_thrice_the_median_of_images_or_for_all_that_the_run_shares() -> None:
    assert plausible_images([10, 20, 30, 2**40], 50) == 60
    assert plausible_images([1, 2, 97], 100) == 100  # however unevenly a run's own images are divided
