import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.data.images import DataSet, Images
from common.data.split import Split, split_reference, split_stratified, split_test
from common.errors import DataError
from common.groups import DataSettings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images_of(labels: Tensor) -> Images:
    return Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)


def data_of(labels: Tensor) -> DataSet:
    return DataSet("made", images_of(labels), images_of(labels), tuple(map(str, range(int(labels.max()) + 1))))


def test_each_class_gives_its_share() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20 + [2] * 70)
    kept, held_out = split_stratified(labels, 0.3, generator())
    assert torch.bincount(labels[held_out]).tolist() == [3, 6, 21]
    assert torch.bincount(labels[kept]).tolist() == [7, 14, 49]


def test_shares_are_rounded_by_largest_remainder() -> None:
    # Exact shares 1.5, 1.75 and 0.75 make 4: floors give 2, and the two remainders of 0.75 come before 0.5.
    labels = torch.tensor([0] * 6 + [1] * 7 + [2] * 3)
    _, held_out = split_stratified(labels, 0.25, generator())
    assert torch.bincount(labels[held_out]).tolist() == [1, 2, 1]


def test_small_classes_stay_on_both_sides_and_single_images_are_kept() -> None:
    labels = torch.tensor([0] * 96 + [1, 1, 2, 3, 3])
    kept, held_out = split_stratified(labels, 0.04, generator())
    assert torch.bincount(labels[held_out], minlength=4).tolist() == [2, 1, 0, 1]
    assert torch.bincount(labels[kept], minlength=4).tolist() == [94, 1, 1, 1]


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_a_split_is_complete_sorted_exact_and_fair(labels: list[int], fraction: float, seed: int) -> None:
    tensor = torch.tensor(labels)
    kept, held_out = split_stratified(tensor, fraction, generator(seed))
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())
    held = {one: tensor[held_out].tolist().count(one) for one in set(labels)}
    for one, count in held.items():
        total = labels.count(one)
        assert count == 0 if total == 1 else 1 <= count <= total - 1
    counts = [labels.count(one) for one in held]
    least, most = sum(min(1, count - 1) for count in counts), sum(count - 1 for count in counts)
    assert abs(min(max(fraction * len(labels), least), most) - len(held_out)) <= 0.5


def test_the_generator_decides_who_is_held_out() -> None:
    labels = torch.zeros(100, dtype=torch.int64)
    first, again, other = (split_stratified(labels, 0.5, generator(seed))[1].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_zero_to_one_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        split_stratified(torch.tensor([0, 0]), fraction, generator())


def test_the_reference_split_has_three_disjoint_parts_of_the_asked_sizes() -> None:
    labels = torch.arange(1000) % 10
    settings = DataSettings(reference_fraction=0.2, validation_fraction=0.25)
    split = split_reference(data_of(labels), settings, seed=3)
    sizes = [len(split.reference_train), len(split.reference_validation), len(split.devices)]
    assert sizes == [150, 50, 800]
    together = torch.cat([split.reference_train, split.reference_validation, split.devices])
    assert sorted(together.tolist()) == list(range(1000))
    assert torch.bincount(labels[split.reference_train]).tolist() == [15] * 10
    assert torch.bincount(labels[split.reference_validation]).tolist() == [5] * 10


def test_the_reference_split_follows_the_seed() -> None:
    data = data_of(torch.arange(200) % 4)

    def parts(split: Split) -> list[list[int]]:
        return [split.reference_train.tolist(), split.reference_validation.tolist(), split.devices.tolist()]

    assert parts(split_reference(data, DataSettings(), 1)) == parts(split_reference(data, DataSettings(), 1))
    assert parts(split_reference(data, DataSettings(), 1)) != parts(split_reference(data, DataSettings(), 2))


def test_too_few_images_for_a_part_are_refused() -> None:
    with pytest.raises(DataError, match="validate"):
        split_reference(data_of(torch.tensor([0, 0, 1, 1])), DataSettings(reference_fraction=0.5), 0)


def test_the_test_split_is_a_fifth_and_always_the_same() -> None:
    images = Images(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100, dtype=torch.int64) % 5)
    train, test = split_test(images, "made")
    again = split_test(images, "made")
    assert torch.bincount(test.labels).tolist() == [4] * 5
    assert len(train) == 80
    assert torch.equal(test.images, again[1].images)


def test_a_set_of_single_images_has_no_test_split() -> None:
    with pytest.raises(DataError, match="no class with two images"):
        split_test(images_of(torch.tensor([0, 1, 2])), "made")
