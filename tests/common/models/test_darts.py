"""The DARTS cell space: sizes as published, found cells by hand, and networks that compute what the papers say."""

import numpy as np
import pytest
import torch
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.models.darts import CellNetwork, Design, Supernet, auxiliary_macs, build_darts, dropped
from common.models.darts_operations import MAKERS, Halve
from common.models.darts_space import EDGES, HEAVIEST, KINDS, OPERATIONS, PUBLISHED, Genotype, chosen, shares_of
from common.models.description import BaseNetwork

SMALL = BaseNetwork("darts_2x3", (1, 8, 8), 10)


def parameters_of(design: Design) -> int:
    with torch.device("meta"):
        module = build_darts(BaseNetwork(design.name, (3, 32, 32), 10))
    return sum(one.numel() for one in module.parameters())


@pytest.mark.parametrize(
    ("design", "params", "macs"),
    [
        (Design(16, 8), 1_930_842, 300_255_744),
        (Design(16, 8, PUBLISHED["FedNAS_V1"]), 337_626, 58_575_360),
        (Design(16, 8, PUBLISHED["DARTS_V2"]), 246_106, 43_444_736),
    ],
    ids=["supernet", "FedNAS_V1", "DARTS_V2"],
)
def test_networks_of_the_published_sizes(design: Design, params: int, macs: int) -> None:
    costs = Architecture.full(BaseNetwork(design.name, (3, 32, 32), 10)).costs
    assert (costs.params, costs.macs) == (params, macs)


def test_the_large_published_networks_by_their_parameters() -> None:
    assert parameters_of(Design(36, 20, PUBLISHED["FedNAS_V1"])) == 4_279_870
    assert parameters_of(Design(36, 20, PUBLISHED["DARTS_V2"])) == 3_349_342


def test_there_are_fourteen_edges_of_eight_operations_in_two_kinds_of_cells() -> None:
    assert (EDGES, len(OPERATIONS), len(KINDS)) == (14, 8, 2)
    module = build_darts(SMALL)
    assert isinstance(module, Supernet)
    assert tuple(module.alphas.shape) == (2, 14, 8)
    assert 5e-4 < float(module.alphas.detach().std()) < 2e-3  # 1e-3 times normal numbers
    assert all(len(cell.edges) == 14 for cell in module.cells)


def test_the_cells_at_one_and_two_thirds_halve_the_sides_and_double_the_channels() -> None:
    assert [Design(16, cells).reductions for cells in (3, 8, 20)] == [(1, 2), (2, 5), (6, 13)]
    module, sizes = build_darts(BaseNetwork("darts_2x8", (1, 8, 8), 10)), []
    for cell in module.cells:  # type: ignore[union-attr]
        cell.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    module(torch.zeros(2, 1, 8, 8))
    assert sizes == [(8, 8, 8)] * 2 + [(16, 4, 4)] * 3 + [(32, 2, 2)] * 3


@pytest.mark.parametrize("genotype", [*PUBLISHED.values(), HEAVIEST])
def test_a_genotype_comes_back_from_its_code_its_file_and_the_networks_name(genotype: Genotype) -> None:
    assert Genotype.from_code(genotype.code) == genotype
    assert Genotype.from_dict(genotype.to_dict()) == genotype
    for auxiliary in (False, True):
        design = Design(16, 8, genotype, auxiliary)
        assert Design.of(design.name) == design


@pytest.mark.parametrize(
    "name",
    [
        "darts_",
        "darts_16",
        "darts_0x8",
        "darts_16x2",
        "darts_16x999",
        "darts_16x8_",
        "darts_16x8_auxiliary",
        "darts_16x8_s1s0s2t0s1t3e3s4",
        "darts_16x8_s1s0s2t0s1t3e3s4_m0i1m0m2m0e1m0",  # an edge is missing
        "darts_16x8_s1s0s2t0s1t3e3s9_m0i1m0m2m0e1m0e2",  # a node that is not there yet
        "darts_16x8_s1s1s2t0s1t3e3s4_m0i1m0m2m0e1m0e2",  # one node twice
        "darts_16x8_x1s0s2t0s1t3e3s4_m0i1m0m2m0e1m0e2",  # no such operation
        "darts_16x8\n",
    ],
)
def test_names_that_strangers_made_up_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ArchitectureError, match=r"^[^\n]*$"):
        Architecture.full(BaseNetwork(name, (3, 32, 32), 10))


@pytest.mark.parametrize("data", [None, [], {}, {"normal": [], "reduce": []}, {"normal": 3, "reduce": "m0"}])
def test_what_is_no_genotype_is_refused(data: object) -> None:
    with pytest.raises(ArchitectureError):
        Genotype.from_dict(data)


def test_the_two_strongest_edges_into_each_node_with_their_strongest_operation() -> None:
    alphas = np.zeros((2, EDGES, 8))
    # Normal cell: node 2 has edges 0 and 1; node 3 edges 2 to 4; node 4 edges 5 to 8; node 5 edges 9 to 13.
    alphas[0, 0, 4], alphas[0, 1, 5] = 1, 2
    alphas[0, 2, 1], alphas[0, 3, 2], alphas[0, 4, 3] = 3, 1, 2
    alphas[0, 5, 0] = 9  # "none" is strongest: what is left of the softmax makes this edge the weakest
    alphas[0, 5, 6] = 5
    alphas[0, 6, 6], alphas[0, 8, 7] = 1, 1
    alphas[0, 13, 1], alphas[0, 9, 7] = 2, 3
    assert chosen(alphas).normal == (
        ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
        ("dil_conv_3x3", 1),
        ("dil_conv_5x5", 3),
        ("dil_conv_5x5", 0),
        ("max_pool_3x3", 4),
    )
    # of equal ones the earlier
    assert chosen(alphas).reduce == tuple(("max_pool_3x3", node) for node in (0, 1) * 4)


def test_shares_are_a_softmax_over_the_operations() -> None:
    alphas = np.random.default_rng(0).normal(size=(2, EDGES, 8)).astype(np.float32)
    assert np.allclose(shares_of(alphas), torch.softmax(torch.from_numpy(alphas), -1).numpy(), atol=1e-7)


def test_an_edge_is_the_mean_of_its_operations_by_the_softmax_with_nothing_for_none() -> None:
    torch.manual_seed(0)
    module = build_darts(SMALL).eval()
    assert isinstance(module, Supernet)
    cell = module.get_submodule("cells.0")
    with torch.no_grad():
        module.alphas.normal_()
        shares = torch.softmax(module.alphas, -1)
        stem = module.stem(torch.randn(2, 1, 8, 8))
        states = [cell.ends.before(stem), cell.ends.last(stem)]
        edge = 0
        for _ in range(4):
            total = torch.zeros_like(states[0])
            for state in states:
                for number, operation in enumerate(cell.get_submodule(f"edges.{edge}").children(), start=1):
                    total += shares[0, edge, number] * operation(state)
                edge += 1
            states.append(total)
        assert torch.allclose(cell(stem, stem, shares), torch.cat(states[2:], 1), atol=1e-6)


def test_each_kind_of_cell_has_its_own_architecture_parameters() -> None:
    module = build_darts(SMALL).eval()
    assert isinstance(module, Supernet)
    states = {position: torch.randn(2, channels, 8, 8) for position, channels in ((0, 6), (1, 8))}
    for position, kind in ((0, 0), (1, 1)):
        cell, equal = module.cells[position], torch.full((2, EDGES, 8), 1 / 8)
        before = torch.randn(2, 6, 8, 8)
        made = cell(before, states[position], equal)
        for changed in (0, 1):
            shares = equal.clone()
            shares[changed, :, 4] = 1 / 2
            assert torch.equal(cell(before, states[position], shares), made) == (changed != kind)


@pytest.mark.parametrize("side", [8, 7, 1])
def test_halving_reads_every_pixel_once_also_of_odd_sides(side: int) -> None:
    layer = Halve(1, 2, affine=False).eval()
    with torch.no_grad():
        layer.conv1.weight.fill_(1)
        layer.conv2.weight.fill_(1)
    x = torch.arange(1.0, side * side + 1).view(1, 1, side, side)
    made = layer(x).detach()
    assert made.shape == (1, 2, -(-side // 2), -(-side // 2))
    scale = float(made[0, 0, 0, 0])  # of the batch norm; the first pixel is 1
    assert torch.allclose(made[0, 0] / scale, x[0, 0, ::2, ::2])
    odd = x[0, 0, 1::2, 1::2]
    assert torch.allclose(made[0, 1, : odd.shape[0], : odd.shape[1]] / scale, odd)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_keep_channels_and_halve_at_stride_two(name: str, stride: int) -> None:
    for affine in (False, True):
        operation = MAKERS[name](4, stride, affine)
        assert operation(torch.randn(2, 4, 8, 8)).shape == (2, 4, 8 // stride, 8 // stride)
        norms = [layer for layer in operation.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert all(norm.affine == affine for norm in norms)
        if "pool" in name:
            assert len(norms) == 1 - affine


def test_an_average_at_the_edge_is_one_of_the_pixels_that_are_there() -> None:
    pool = MAKERS["avg_pool_3x3"](1, 1, True)
    assert torch.allclose(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_dropped_paths_are_whole_images_and_keep_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 2, 2)
    made = dropped(x, 0.25)
    assert made.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(made.amax((1, 2, 3)), made.amin((1, 2, 3)))
    assert abs(float(made.mean()) - 1) < 0.03
    assert dropped(x, 0.0) is x


def test_paths_are_dropped_in_training_alone_and_never_identities() -> None:
    identities = Genotype.from_code("_".join(["i0i1i0i1i0i1i0i1"] * 2))
    base = BaseNetwork(Design(2, 3, identities).name, (1, 8, 8), 10)
    for genotype, differs in ((identities, False), (HEAVIEST, True)):
        torch.manual_seed(0)
        module = build_darts(BaseNetwork(Design(2, 3, genotype).name, base.input_shape, 10))
        assert isinstance(module, CellNetwork)
        first = module.cells[0]  # a normal cell: identities of stride 1
        states = torch.randn(2, 6, 8, 8)
        whole, thinned = first(states, states, 0.0), first(states, states, 0.9)
        assert torch.equal(whole, thinned) != differs
        module.drop_path = 0.9
        module.eval()
        images = torch.randn(2, 1, 8, 8)
        assert torch.equal(module(images), module(images))


def test_the_auxiliary_head_reads_the_second_reduction_cell_and_only_while_training() -> None:
    design = Design(2, 3, HEAVIEST, auxiliary=True)
    module = build_darts(BaseNetwork(design.name, (3, 32, 32), 10))
    assert isinstance(module, CellNetwork)
    assert module.auxiliary_head is not None
    seen: list[tuple[int, ...]] = []
    module.auxiliary_head.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    module.eval()(torch.zeros(2, 3, 32, 32))
    assert module.auxiliary_logits is None
    logits = module.train()(torch.zeros(2, 3, 32, 32))
    assert seen == [(2, 32, 8, 8)]
    assert module.auxiliary_logits is not None
    assert module.auxiliary_logits.shape == logits.shape == (2, 10)


def test_the_auxiliary_heads_work_is_counted() -> None:
    design, base = Design(16, 8, HEAVIEST, auxiliary=True), BaseNetwork("", (3, 32, 32), 10)
    # 256 channels of 8x8 are pooled to 2x2, squeezed to 128, convolved 2x2 to 768, and classified
    assert auxiliary_macs(design, base) == 256 * 128 * 4 + 4 * 128 * 768 + 7680
    assert auxiliary_macs(Design(16, 8, HEAVIEST), base) == 0


def test_small_images_have_no_auxiliary_head() -> None:
    with pytest.raises(ArchitectureError, match="at least 32 pixels"):
        build_darts(BaseNetwork(Design(2, 3, HEAVIEST, auxiliary=True).name, (1, 8, 8), 10))


def test_no_found_network_needs_more_than_the_supernet_or_the_heaviest() -> None:
    generator = np.random.default_rng(0)
    supernet = parameters_of(Design(4, 4))
    heaviest = parameters_of(Design(4, 4, HEAVIEST))
    assert heaviest < supernet
    for _ in range(5):
        assert parameters_of(Design(4, 4, chosen(generator.normal(size=(2, EDGES, 8))))) <= heaviest


def test_batch_norms_scale_only_what_was_found() -> None:
    for design, affine in ((Design(2, 3), False), (Design(2, 3, HEAVIEST), True)):
        module = build_darts(BaseNetwork(design.name, (1, 8, 8), 10))
        norms = [
            one.affine for name, one in module.named_modules() if isinstance(one, nn.BatchNorm2d) and "stem" not in name
        ]
        assert set(norms) == {affine}
