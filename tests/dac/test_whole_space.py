"""The search space `all`: gates on every channel group and block of every network, and what is cut by them."""

from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.bounds import parse_bounds
from common.budget import DeviceBudget
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import BudgetError
from common.groups import SearchSettings
from common.learning import Feed
from common.models import describe
from common.models.description import BaseNetwork
from common.progress import Silent
from common.search_space import SearchSpace
from common.seeds import torch_generator
from dac.files import load_member, save_member
from dac.joint import share_weights
from dac.plan import check_feasible
from dac.search import Family, search
from dac.supernet import Supernet
from tests.common.models.networks import EVERY, SHAPES, base_of, images, random_part
from tests.common.models.test_traced import disturbed
from tests.examples import slow

CPU = torch.device("cpu")
ALL = SearchSpace("all")


def gated(model: str, seed: int) -> Supernet:
    """A supernet with statistics of its own and random gates, some of them negative."""
    supernet = Supernet(Architecture.full(base_of(model)), "after-depthwise", seed, CPU, ALL)
    disturbed(supernet.module, seed)
    with torch.no_grad():
        for name, gate in supernet.gates.items():
            gate.weight.copy_(torch.rand(gate.weight.shape, generator=torch_generator(seed, name)) * 1.6 - 0.3)
    return supernet


@pytest.mark.parametrize("model", EVERY)
def test_a_masked_supernet_equals_the_sliced_network(model: str) -> None:
    supernet, part = gated(model, 5), random_part(model, 7, share=0.6)
    sliced = part.build_from(supernet.extract(part)).eval()
    with torch.no_grad():
        for name, gate in supernet.gates.items():
            if name in part.indices:
                closed = sorted(set(range(len(gate.weight))) - set(part.indices[name]))
                gate.weight[closed] = 0.0
            elif name in part.removed:
                gate.weight.zero_()
        expected, found = supernet.module.eval()(images(model)), sliced(images(model))
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_every_group_and_block_has_one_gate_and_its_saliency_sums_over_all_places() -> None:
    supernet = gated("resnet8", 0)
    description = describe(base_of("resnet8"))
    assert set(supernet.gates) == {*(group.name for group in description.reducible), "blocks.0"}
    stem = supernet.gates["stem_conv"]  # read by both convolutions of the next stage and the block between
    assert [layer.name for layer in description.readers("stem_conv")] == [
        "blocks.0.conv1",
        "blocks.1.conv1",
        "blocks.1.shortcut_conv",
    ]
    supernet.module.train()
    supernet.module(images("resnet8")).square().sum().backward()
    assert stem.weight.grad is not None
    torch.testing.assert_close(stem.saliency, (stem.weight * stem.weight.grad).detach() ** 2)
    assert bool(supernet.gates["blocks.0"].saliency.any())


def feed(count: int, seed: int, shape: tuple[int, int, int]) -> Feed:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 255, (count, *shape), generator=generator, dtype=torch.uint8)
    prepare = Preprocessor(torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25), "none")
    return Feed(Images(pixels, torch.arange(count) % 10), prepare, 10)


def found(model: str, folder: Path, budgets: list[DeviceBudget], **settings: object) -> Family:
    chosen = {"warmup_epochs": 1, "epochs_per_step": 1, "fine_tune_epochs": 1, "search_space": "all", **settings}
    return search(
        base_of(model),
        budgets,
        feed(20, 0, SHAPES[model]),
        feed(10, 1, SHAPES[model]),
        SearchSettings.from_mapping({name.replace("_", "-"): value for name, value in chosen.items()}),
        seed=0,
        accelerator=CPU,
        progress=Silent(),
        checkpoint=folder / "search.safetensors",
        record=lambda row: None,
    )


HEAVY = ("56", "110", "121", "vgg", "50_32", "resnet18", "efficientnet", "v3_small", "shufflenet")


@pytest.mark.parametrize(
    "model",
    [pytest.param(one, marks=[pytest.mark.slow] * any(heavy in one for heavy in HEAVY)) for one in SHAPES],
)
def test_a_search_to_half_of_the_macs(model: str, tmp_path: Path) -> None:
    full = Architecture.full(base_of(model)).costs
    budgets = [DeviceBudget(macs=full.macs // 2), DeviceBudget(macs=int(full.macs / 2.05))]
    family = found(model, tmp_path, budgets, channel_floor=2)
    larger, smaller = family.members
    assert larger.architecture.costs.macs < full.macs // 2
    assert larger.architecture.contains(smaller.architecture)
    for member in family.members:
        member.architecture.build_from(member.state)


def test_a_search_that_removes_blocks_is_saved_read_and_trained_jointly(tmp_path: Path) -> None:
    full = Architecture.full(base_of("resnet20")).costs
    budgets = [DeviceBudget(macs=full.macs // share) for share in (2, 8)]
    family = found("resnet20", tmp_path, budgets, **{"channel_multiple": 4, "channel_floor": 4})
    assert family.members[1].architecture.removed
    for number, member in enumerate(family.members):
        path = tmp_path / f"{number}.json"
        save_member(path, member, name="one", parent=None, seed=0)
        again = load_member(path)
        assert again.architecture == member.architecture
        assert all(torch.equal(again.state[name], tensor) for name, tensor in member.state.items())
        for group in member.architecture.description.reducible:
            size = member.architecture.sizes[group.name]
            assert size in (0, group.size) or size % 4 == 0
    settings = SearchSettings(joint_epochs=1)
    train, validation = feed(20, 0, SHAPES["resnet20"]), feed(10, 1, SHAPES["resnet20"])
    joint = share_weights(list(family.members), train, validation, settings, seed=0, accelerator=CPU, progress=Silent())
    larger, smaller = (member.state["classifier.bias"] for member in joint)
    assert torch.equal(larger, smaller)


@pytest.mark.parametrize("stop", [2, *slow(4)])
def test_an_interrupted_search_that_removes_blocks_ends_the_same(stop: int, tmp_path: Path) -> None:
    budgets = [DeviceBudget(macs=Architecture.full(base_of("resnet20")).costs.macs // 6)]
    whole = found("resnet20", tmp_path, budgets)

    class Cut(Exception):
        pass

    folder = tmp_path / "cut"
    rows: list[object] = []

    def record(row: object) -> None:
        rows.append(row)
        if len(rows) == stop:
            raise Cut

    arguments = (base_of("resnet20"), budgets, feed(20, 0, SHAPES["resnet20"]), feed(10, 1, SHAPES["resnet20"]))
    settings = SearchSettings(warmup_epochs=1, epochs_per_step=1, fine_tune_epochs=1, search_space="all")
    with pytest.raises(Cut):
        search(
            *arguments,
            settings,
            seed=0,
            accelerator=CPU,
            progress=Silent(),
            checkpoint=folder / "search.safetensors",
            record=record,
        )
    again = found("resnet20", folder, budgets)
    assert again.members[0].architecture == whole.members[0].architecture
    state = whole.members[0].state
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.members[0].state.items())


def test_the_floor_of_the_whole_space_is_far_lower_and_named() -> None:
    base = base_of("mobilenet_v2")
    inner = describe(base).costs(SearchSpace().floor_sizes(describe(base)))
    least = describe(base).costs(ALL.floor_sizes(describe(base)))
    assert least.params < inner.params / 50
    budget = DeviceBudget(params=inner.params - 1000)
    with pytest.raises(BudgetError, match=f"{inner.params:,} parameters"):
        check_feasible(base, [budget])
    check_feasible(base, [budget], ALL)
    smaller = SearchSpace.of(SearchSettings(search_space="all", channel_floor=2))
    assert describe(base).costs(smaller.floor_sizes(describe(base))).params < least.params


def test_widths_are_fast_ones_in_the_whole_space_and_the_papers_elsewhere() -> None:
    def multiple(**settings: object) -> int:
        return SearchSpace.of(SearchSettings(**settings)).multiple  # type: ignore[arg-type]

    assert (multiple(), multiple(search_space="inner"), multiple(recipe="paper")) == (8, 1, 1)
    assert (multiple(search_space="inner", channel_multiple=3), multiple(channel_multiple=1)) == (3, 1)
    assert multiple(channel_floor=2) == 2, "a smaller floor is not out of reach"


def test_a_microcontroller_with_77_kb_of_weights_and_64_kb_of_activations_in_int8_is_served(tmp_path: Path) -> None:
    budget = parse_bounds({"max-params": "77KB:int8", "max-memory": "64KB:int8"}, "max-")
    assert budget == DeviceBudget(params=77_000, peak_memory_bytes=4 * 64_000)
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
    with pytest.raises(BudgetError):
        check_feasible(base, [budget])  # the search space inner ends at 511,586 parameters
    settings = SearchSettings(
        search_space="all", warmup_epochs=1, epochs_per_step=0, fine_tune_epochs=0, step_share=0.6, search_batch_size=4
    )
    family = search(
        base,
        [budget],
        feed(4, 0, (3, 32, 32)),
        feed(4, 1, (3, 32, 32)),
        settings,
        seed=0,
        accelerator=CPU,
        progress=Silent(),
        checkpoint=tmp_path / "search.safetensors",
        record=lambda row: None,
    )
    costs = family.members[0].architecture.costs
    assert costs.params < 77_000
    assert costs.peak_memory_bytes // 4 < 64_000  # one byte for each activation
    assert budget.admits(costs)
