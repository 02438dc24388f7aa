"""Layers of several networks side by side are each network's own layer on its own channels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.batched.layers import Draws, Now, StackedDropout, StackedNorm2d, products, unstacked

CPU = torch.device("cpu")


def test_each_devices_rows_times_its_own_matrix() -> None:
    rows = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    matrices = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])
    assert products(rows, matrices).tolist() == [[[3.0], [6.0]], [[11.0], [14.0]]]


def test_the_gradients_of_products_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 3, 2, generator=generator, dtype=torch.double, requires_grad=True)
    matrices = torch.randn(3, 4, 2, generator=generator, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(products, (rows, matrices))


def test_the_gradient_of_the_matrices_is_written_to_its_place() -> None:
    rows, matrices = torch.randn(5, 3, 2), torch.randn(3, 4, 2, requires_grad=True)
    place = torch.full((3, 100), 7.0)[:, 1:9]
    [gradient] = torch.autograd.grad(products(rows, matrices, place.view(3, 4, 2)).sum(), [matrices])
    assert gradient.data_ptr() == place.data_ptr()
    torch.testing.assert_close(place.view(3, 4, 2), rows.sum(0).unsqueeze(1).expand(3, 4, 2))


@pytest.mark.parametrize("own", [[6, 6], [6, 3], [2, 6]], ids=str)
def test_a_batch_norm_sees_the_images_of_each_device_and_no_padding(own: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(6, 8, 3, 3, generator=generator, dtype=torch.double).requires_grad_()
    slope = torch.randn(6, 8, 3, 3, generator=generator, dtype=torch.double)
    for device, count in enumerate(own):
        slope[count:, 4 * device : 4 * device + 4] = 0
    alone = [nn.BatchNorm2d(4).double() for _ in own]
    for norm in alone:
        nn.init.normal_(norm.weight, generator=generator)
        nn.init.normal_(norm.bias, generator=generator)
    together = StackedNorm2d(4)
    together._parameters.clear()
    together._buffers.clear()
    together.now = Now(None if own == [6, 6] else own)
    for name in ("weight", "bias", "running_mean", "running_var"):
        stacked = torch.stack([getattr(norm, name).detach().clone() for norm in alone])
        setattr(together, name, stacked.requires_grad_(not name.startswith("running")))
    output = together(maps)
    (output * slope).sum().backward()
    for device, (norm, count) in enumerate(zip(alone, own, strict=True)):
        mine = slice(4 * device, 4 * device + 4)
        single = maps.detach()[:count, mine].clone().requires_grad_()
        expected = norm(single)
        (expected * slope[:count, mine]).sum().backward()
        torch.testing.assert_close(output[:count, mine], expected)
        assert maps.grad is not None
        torch.testing.assert_close(maps.grad[:count, mine], single.grad)
        assert maps.grad[count:, mine].abs().max() == 0 if count < 6 else True
        for name in ("weight", "bias"):
            torch.testing.assert_close(getattr(together, name).grad[device], getattr(norm, name).grad)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(together, name)[device], getattr(norm, name))
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3, 3)], ids=str)
def test_dropout_draws_as_if_each_device_were_alone(shape: tuple[int, ...]) -> None:
    layer = StackedDropout(0.4)
    layer.devices = 2
    layer.now = Now([6, 2], Draws([11, 12], CPU))
    values = torch.randn(shape)
    before = torch.get_rng_state()
    try:
        first, second = layer(values), layer(values)
        for device, count in enumerate((6, 2)):
            torch.manual_seed(11 + device)
            own = unstacked(values, 2)[:count, device]
            for output in (first, second):
                assert torch.equal(unstacked(output, 2)[:count, device], F.dropout(own, 0.4))
    finally:
        torch.set_rng_state(before)
