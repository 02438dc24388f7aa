"""Whether a network can be stacked: tried, by comparing two stacked networks with each of them alone."""

from functools import lru_cache

import torch
from torch import nn

from client.batched.layers import Draws, unstacked
from client.batched.network import StackedNetwork, stack_layers
from common.architecture import Architecture
from common.network import Network

TOLERANCE = 1e-6
"""Largest difference, as a share of the largest value, in double precision: rounding is below 1e-10, mistakes above."""

IMAGES = (4, 3)
"""Of the two networks that are tried; the shorter batch is padded."""

CPU = torch.device("cpu")


CHANNELS = 3
"""Of each group of the network that is tried: what happens between layers does not depend on how many there are."""


@lru_cache(maxsize=16)
def template_of(network: Network) -> nn.Module | str:
    """The module of the network with stacked layers, for `StackedNetwork`; or, in words, why there is none."""
    template = network.build(0)
    return stack_layers(template) or _objection(_narrowed(network)) or template


def _narrowed(network: Network) -> Network:
    if not isinstance(network, Architecture):
        return network
    kept = {group.name: range(min(CHANNELS, group.size)) for group in network.description.reducible}
    return Architecture.with_kept(network.base, kept, network.removed)


@lru_cache(maxsize=64)
def _objection(network: Network) -> str:
    """Why the network, whose layers can be stacked, cannot; empty if it can."""
    template = network.build(0)
    stack_layers(template)
    try:
        with torch.random.fork_rng(devices=[]):
            alike = _compare(network, template)
    except Exception as error:  # whatever a stranger's forward raises when it is given the channels of two networks
        return f"it does not take the channels of two devices side by side ({type(error).__name__}: {error!s:.100})"
    return "" if alike else "it does more between its layers than what works channel by channel"


def _compare(network: Network, template: nn.Module) -> bool:
    """Whether logits, gradients and running statistics of the stacked networks are those of each alone."""
    layout, devices = network.layout, range(len(IMAGES))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(count, *network.input_shape, generator=generator, dtype=torch.double) for count in IMAGES]
    slopes = [torch.randn(count, network.classes, generator=generator, dtype=torch.double) for count in IMAGES]
    modules = [network.build(device).train() for device in devices]
    sent = [layout.flatten(module.state_dict()) for module in modules]
    stacked = StackedNetwork(template, layout, sent, Draws([0, 1], CPU), CPU, torch.double)
    stacked.module.train()
    stacked.use(len(IMAGES), IMAGES)
    padded = torch.zeros(max(IMAGES), len(IMAGES), *network.input_shape, dtype=torch.double)
    for device, own in enumerate(images):
        padded[: len(own), device] = own
    side_by_side = padded.flatten(1, 2).contiguous(memory_format=torch.channels_last)
    logits = unstacked(stacked.module(side_by_side), len(IMAGES))
    together = [logits[: IMAGES[device], device] for device in devices]
    stacked.backward(sum(((one * slope).sum() for one, slope in zip(together, slopes, strict=True)), torch.zeros(())))
    for device, module in enumerate(modules):
        torch.manual_seed(device)
        # channels last, as devices have it, and in that order dropout draws
        module.double().to(memory_format=torch.channels_last)
        alone = module(images[device].contiguous(memory_format=torch.channels_last))
        parameters = dict(module.named_parameters())
        found = torch.autograd.grad((alone * slopes[device]).sum(), list(parameters.values()))
        gradients = dict(module.state_dict()) | dict(zip(parameters, found, strict=True))
        expected = torch.cat([gradients[name].reshape(-1) for name in layout.names if name in parameters])
        after = torch.from_numpy(layout.flatten(module.state_dict()))
        pairs = (
            (together[device], alone),
            (stacked.gradients[device], expected),
            (torch.from_numpy(stacked.vector(device)), after),
        )
        if not all(_near(one, other) for one, other in pairs):
            return False
    return True


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max().clamp(min=1))
