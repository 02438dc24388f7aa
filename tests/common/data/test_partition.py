import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from common.data.partition import class_coverage, partition
from common.errors import DataError
from common.seeds import numpy_generator
from tests.examples import examples

BALANCED = torch.arange(400) % 10
EVERY_SPEC = [
    "iid",
    "dirichlet:0.5",
    "balanced-dirichlet:0.5",
    "classes:2",
    "shards:2",
    "paper-iid:4",
    "paper-shards:10",
    "patho:2",
    "diri:0.5",
]


def lists(parts: list[Tensor]) -> list[list[int]]:
    return [part.tolist() for part in parts]


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_parts_are_sorted_disjoint_in_range_and_large_enough(spec: str) -> None:
    parts = partition(BALANCED, spec, 10, seed=1)
    together = [index for part in lists(parts) for index in part]
    assert len(parts) == 10
    assert len(together) == len(set(together))
    assert set(together) <= set(range(400))
    assert all(part == sorted(part) for part in lists(parts))
    assert all(len(part) >= 2 and part.dtype == torch.int64 for part in parts)


@pytest.mark.parametrize("spec", EVERY_SPEC)
def test_the_seed_decides_the_parts(spec: str) -> None:
    first, again, other = (lists(partition(BALANCED, spec, 10, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@given(
    labels=st.lists(st.integers(0, 4), min_size=40, max_size=120),
    spec=st.sampled_from(["iid", "dirichlet:1", "dirichlet:0.3", "classes:1", "classes:2", "shards:2"]),
    devices=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=examples(60), deadline=None)
def test_specs_for_all_images_leave_none_over(labels: list[int], spec: str, devices: int, seed: int) -> None:
    tensor = torch.tensor(labels)
    try:
        parts = partition(tensor, spec, devices, seed)
    except DataError:
        reject()  # Rare classes and many devices may be impossible.
    together = sorted(index for part in lists(parts) for index in part)
    if spec.startswith("shards"):
        assert len(labels) - len(together) < 2 * devices
        assert len(set(together)) == len(together)
    elif spec.startswith("classes") and devices < len(set(labels)):
        used = {labels[index] for index in together}
        assert together == [index for index, label in enumerate(labels) if label in used]
    else:
        assert together == list(range(len(labels)))


def test_iid_parts_are_equal_and_random() -> None:
    parts = partition(BALANCED, "iid", 8, seed=0)
    assert [len(part) for part in parts] == [50] * 8
    assert parts[0].tolist() != list(range(50))


@pytest.mark.parametrize("devices", [1, 3, 7])
def test_iid_parts_are_those_of_flowers_partitioner(devices: int) -> None:
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    labels = torch.arange(50) % 4
    theirs = IidPartitioner(devices)
    theirs.dataset = Dataset.from_dict({"index": numpy_generator(9, "partition", "order").permutation(50)})
    expected = [sorted(theirs.load_partition(device)["index"]) for device in range(devices)]
    assert lists(partition(labels, "iid", devices, 9)) == expected


def test_a_small_alpha_gives_fewer_classes_than_a_large_one() -> None:
    uneven = class_coverage(BALANCED, partition(BALANCED, "dirichlet:0.05", 5, seed=0))
    even = class_coverage(BALANCED, partition(BALANCED, "dirichlet:100", 5, seed=0))
    assert even == [10] * 5
    assert sum(uneven) < sum(even)


def test_balanced_draws_bend_the_sizes_towards_each_other() -> None:
    spread = {}
    for kind in ("dirichlet", "balanced-dirichlet"):
        sizes = [len(part) for seed in range(5) for part in partition(BALANCED, f"{kind}:0.5", 4, seed)]
        spread[kind] = max(sizes) - min(sizes)
        assert sum(sizes) == 5 * len(BALANCED)
    # a device with a quarter of the images gets no more: at most one class (40 images) beyond its share
    assert spread["balanced-dirichlet"] < spread["dirichlet"]
    assert max(len(part) for part in partition(BALANCED, "balanced-dirichlet:0.5", 4, 0)) <= 100 + 40
    assert min(len(part) for part in partition(BALANCED, "balanced-dirichlet:0.1", 8, 0)) >= 10


@pytest.mark.parametrize("number", [1, 3, 10])
def test_classes_gives_every_device_that_many(number: int) -> None:
    assert class_coverage(BALANCED, partition(BALANCED, f"classes:{number}", 10, seed=0)) == [number] * 10


def test_shards_are_equal_runs_of_the_sorted_labels() -> None:
    parts = partition(BALANCED, "shards:2", 10, seed=0)
    assert [len(part) for part in parts] == [40] * 10
    assert max(class_coverage(BALANCED, parts)) <= 2


def test_paper_iid_gives_every_device_so_many_of_every_class() -> None:
    parts = partition(BALANCED, "paper-iid:3", 13, seed=0)
    assert [torch.bincount(BALANCED[part]).tolist() for part in parts] == [[3] * 10] * 13


def test_paper_shards_gives_two_single_class_shards() -> None:
    parts = partition(BALANCED, "paper-shards:20", 10, seed=0)
    for part in parts:
        counts = torch.bincount(BALANCED[part])
        assert sorted(counts[counts > 0].tolist()) in ([20, 20], [40])
    assert sum(map(len, parts)) == 400


@pytest.mark.parametrize(("devices", "shard"), [(10, 20), (20, 10), (8, 20)])
def test_patho_gives_equal_single_class_shards_of_different_classes(devices: int, shard: int) -> None:
    """400 images: 2 shards of each class for 10 devices, 4 for 20; for 8, 16 of 20 shards are dealt."""
    parts = partition(BALANCED, "patho:2", devices, seed=0)
    assert [len(part) for part in parts] == [2 * shard] * devices
    different = 0
    for part in parts:
        counts = torch.bincount(BALANCED[part])
        assert sorted(counts[counts > 0].tolist()) in ([shard, shard], [2 * shard])
        different += len(counts[counts > 0]) == 2
    assert different >= devices - 1  # the last may find shards of one class alone


def test_diri_gives_equal_numbers_and_fewer_classes_the_smaller_alpha() -> None:
    coverages = []
    for alpha in (1e-300, 0.1, 1000):
        parts = partition(BALANCED, f"diri:{alpha}", 5, seed=0)
        assert [len(part) for part in parts] == [80] * 5
        coverages.append(sum(class_coverage(BALANCED, parts)))
    assert coverages[0] < coverages[1] < 48 <= coverages[2]
    # the first device is the first to draw: with nearly no alpha one class is all it wants, and that has 40 images
    first = torch.bincount(BALANCED[partition(BALANCED, "diri:1e-300", 5, seed=0)[0]])
    assert sorted(first[first > 0].tolist()) == [40, 40]


def test_labels_need_not_be_consecutive() -> None:
    labels = torch.tensor([3, 9] * 20)
    assert class_coverage(labels, partition(labels, "classes:1", 2, seed=0)) == [1, 1]


def test_class_coverage_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    assert class_coverage(labels, [torch.tensor([0, 1]), torch.tensor([1, 2, 3])]) == [1, 3]


@pytest.mark.parametrize(
    ("spec", "devices", "message"),
    [
        ("iid", 201, "at least 402 images, but there are 400: use at most 200 devices"),
        ("iid", 0, "at least one device"),
        ("dirichlet:0", 4, "ALPHA above 0"),
        ("dirichlet:-1", 4, "ALPHA above 0"),
        ("dirichlet:nan", 4, "ALPHA above 0"),
        ("balanced-dirichlet:0", 4, "such as balanced-dirichlet:0.5"),
        ("dirichlet:.", 4, "unknown partition"),
        ("dirichlet:0.0001", 30, "larger ALPHA or fewer than 30 devices"),
        ("classes:0", 4, "at least 1"),
        ("classes:11", 4, "needs 11 classes, but the images have 10"),
        ("classes:10", 41, "use fewer devices or fewer classes"),
        ("shards:101", 4, "use at most shards:100"),
        ("paper-iid:11", 4, "use at most paper-iid:10"),
        ("paper-iid:1", 41, "use at most 40 devices"),
        ("paper-shards:40", 6, "the images give 10: use at most paper-shards:20"),
        ("patho:0", 4, "at least 1"),
        ("patho:11", 4, "needs 11 classes, but the images have 10"),
        ("diri:0", 4, "ALPHA above 0 and at most 1e6, such as diri:0.5"),
        ("diri:x", 4, "unknown partition"),
        ("by-moon:3", 4, "unknown partition 'by-moon:3': use iid"),
        ("classes:two", 4, "unknown partition"),
        ("iid:3", 4, "unknown partition"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(spec: str, devices: int, message: str) -> None:
    with pytest.raises(DataError, match=r"^[^\n]*$") as caught:
        partition(BALANCED, spec, devices, seed=0)
    assert message in str(caught.value)


def test_advice_for_paper_shards_works() -> None:
    assert len(partition(BALANCED, "paper-shards:20", 6, seed=0)) == 6


def test_partitioning_is_silent(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    for spec in EVERY_SPEC:
        partition(BALANCED, spec, 10, seed=0)
    assert capfd.readouterr() == ("", "")
    assert [str(one.message) for one in recwarn] == []
