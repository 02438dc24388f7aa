"""The mean of a cohort: the formula, in any order of arrival, and federated averaging as its special case."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import train_task
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.layout import Vector
from common.messages import Task
from common.models.description import BaseNetwork
from server.aggregation import CohortMean


def averaged(mean: CohortMean) -> Vector | None:
    total = mean.result()
    return None if total is None else total.mean()


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_models_count_by_their_samples() -> None:
    mean = CohortMean(["a", "b"])
    mean.fold("a", vector(1, -2), 1)
    mean.fold("b", vector(5, 2), 3)
    result = averaged(mean)
    assert result is not None
    assert result.dtype == np.float32
    assert result.tolist() == [4.0, 1.0]  # (1*1 + 3*5) / 4 and (1*-2 + 3*2) / 4


def test_without_a_model_there_is_no_mean() -> None:
    mean = CohortMean(["a", "b"])
    mean.skip("b")
    assert averaged(mean) is None


models = st.lists(
    st.tuples(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), st.integers(1, 10**9), st.booleans()),
    min_size=1,
    max_size=7,
)


@given(models, st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_who_answers_first_nor_on_who_is_missing(models: list, random: object) -> None:
    names = [f"device-{number}" for number in range(len(models))]
    present = [name for name, (_, _, answers) in zip(names, models, strict=True) if answers]
    by_name = dict(zip(names, models, strict=True))
    expected = CohortMean(present)
    for name in present:
        expected.fold(name, vector(*by_name[name][0]), by_name[name][1])
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    mean = CohortMean(names)
    for name in shuffled:
        if name in present:
            mean.fold(name, vector(*by_name[name][0]), by_name[name][1])
        elif len(name) % 2:
            mean.skip(name)
    first, second = averaged(expected), averaged(mean)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert first.tobytes() == second.tobytes()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 2**40))
def test_a_single_device_gets_its_own_model_back_bit_for_bit(values: list[float], samples: int) -> None:
    mean = CohortMean(["only"])
    mean.fold("only", vector(*values), samples)
    result = averaged(mean)
    assert result is not None
    assert result.tobytes() == vector(*values).tobytes()


def test_only_early_models_are_held() -> None:
    mean = CohortMean(["a", "b", "c"])
    mean.fold("c", vector(3), 1)
    assert list(mean._early) == ["c"]
    mean.fold("a", vector(1), 1)
    mean.skip("b")
    assert mean._early == {}
    assert averaged(mean) == vector(2)


def test_a_device_counts_once() -> None:
    mean = CohortMean(["a"])
    mean.fold("a", vector(1), 1)
    with pytest.raises(ValueError, match="settled before"):
        mean.fold("a", vector(1), 1)
    with pytest.raises(ValueError, match="not asked"):
        mean.skip("stranger")


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
            task = Task(number, architecture, weights, seed=3, batch_size=4, momentum=0.5)
            return train_task(task, clients[name], preprocessor, name, torch.device("cpu")).weights

        total = sum(len(images) for images in clients.values())
        plain_sum = np.zeros(layout.size)
        for name, images in clients.items():
            plain_sum = plain_sum + len(images) * trained(name, plain).astype(np.float64)
        plain = (plain_sum / total).astype(np.float32)

        mean = CohortMean(list(clients))
        for name in ("device-02", "device-00", "device-01"):
            mean.fold(name, trained(name, ours), len(clients[name]))
        result = averaged(mean)
        assert result is not None
        ours = result
    assert ours.tobytes() == plain.tobytes()
    assert not np.array_equal(ours, layout.flatten(architecture.build(0).state_dict()))
