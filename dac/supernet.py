"""The network under search: an architecture's module with a gate on every prunable channel."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import nn

from common.architecture import Architecture
from common.layout import State
from common.learning import place
from common.models.description import Axis, GatePoint
from common.slicing import group_positions, slice_state, slice_tensor
from dac.gates import ChannelGate


class Supernet:
    """A gated module of `architecture`; `gates` holds one gate per prunable group."""

    def __init__(self, architecture: Architecture, gate_position: str, seed: int, accelerator: torch.device) -> None:
        self.architecture = architecture
        self.gate_position = gate_position
        self.accelerator = accelerator
        module = architecture.build(seed)
        self.gates: dict[str, ChannelGate] = {}
        for point in self._points():
            gate = ChannelGate(architecture.sizes[point.group])
            module.set_submodule(point.module, gate)
            self.gates[point.group] = gate
        self.module: nn.Module = place(module, accelerator)

    def _points(self) -> tuple[GatePoint, ...]:
        return self.architecture.description.gates[self.gate_position]

    @property
    def gate_weights(self) -> list[torch.Tensor]:
        """The trainable gate vectors, one of shape (channels,) per group."""
        return [gate.weight for gate in self.gates.values()]

    def tensor_axes(self) -> dict[str, tuple[Axis | None, ...]]:
        """Axes of every tensor of the gated module's state dict."""
        own = {
            f"{point.module}.{name}": (Axis(point.group),)
            for point in self._points()
            for name in ("weight", "saliency")
        }
        return {**self.architecture.description.tensor_axes, **own}

    def state(self) -> State:
        """The gated module's state dict, on the CPU."""
        return {name: value.detach().cpu() for name, value in self.module.state_dict().items()}

    def shrunk(self, smaller: Architecture) -> Self:
        """A supernet of `smaller` that inherits weights, statistics and gates channel by channel."""
        result = type(self)(smaller, self.gate_position, 0, self.accelerator)
        positions = group_positions(self.architecture, smaller)
        axes, state = self.tensor_axes(), self.state()
        result.module.load_state_dict({name: slice_tensor(state[name], axes[name], positions) for name in state})
        return result

    def copy(self) -> Self:
        """An independent supernet with the same weights and gates."""
        return self.shrunk(self.architecture)

    def extract(self, smaller: Architecture) -> State:
        """The weights of `smaller` without gates: in evaluation mode exactly this supernet with other gates at zero.

        Kept gates are folded into the layer that reads them. Before the depthwise convolution a zero gate still lets
        a constant through (the batch norm of nothing); it is folded into the running mean it ends in.
        """
        state = self.state()
        for point in self._points():
            kept = set(smaller.indices[point.group])
            open_ = torch.tensor([channel in kept for channel in self.architecture.indices[point.group]])
            if point.constant_path is not None and not bool(open_.all()):
                _fold_constant(state, point.constant_path, ~open_)
        for point in self._points():
            reader = f"{point.reader}.weight"
            gate = state[f"{point.module}.weight"]
            axes = self.architecture.description.tensor_axes[reader]
            layer = self.architecture.description.layer_by_name[point.reader]
            dimension = 0 if layer.kind == "depthwise" else 1
            axis = axes[dimension]
            spread = axis.spread if axis is not None else 1
            shape = [1] * len(axes)
            shape[dimension] = -1
            state[reader] = state[reader] * gate.repeat_interleave(spread).view(shape)
        return slice_state(state, self.architecture, smaller)

    def fresh_saliency(self) -> None:
        """Forget the saliency gathered so far."""
        for gate in self.gates.values():
            gate.saliency.zero_()


def _fold_constant(state: State, path: tuple[str, str, str], closed: torch.Tensor) -> None:
    """Subtract from the last batch norm's running mean what channels gated to zero still send there."""
    norm, convolution, last_norm = path
    deviation = (state[f"{norm}.running_var"] + nn.BatchNorm2d(1).eps).sqrt()
    constant = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] / deviation * state[f"{norm}.weight"]
    constant = torch.where(closed, constant.clamp(min=0), torch.zeros_like(constant))
    state[f"{last_norm}.running_mean"] = (
        state[f"{last_norm}.running_mean"] - state[f"{convolution}.weight"].flatten(1) @ constant
    )


def make_optimizer(
    supernet: Supernet, learning_rate: float, momentum: float, weight_decay: float, gate_weight_decay: float
) -> torch.optim.SGD:
    """SGD with the gates in a group of their own, so that their weight decay is never silent."""
    gates = supernet.gate_weights
    known = {id(gate) for gate in gates}
    weights = [parameter for parameter in supernet.module.parameters() if id(parameter) not in known]
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": gates, "weight_decay": gate_weight_decay},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


def momentum_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """The optimizer's momentum buffers by parameter name, on the CPU; empty before the first step."""
    buffers: State = {}
    for name, parameter in module.named_parameters():
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            buffers[name] = buffer.detach().cpu()
    return buffers


def restore_momentum(module: nn.Module, optimizer: torch.optim.Optimizer, buffers: Mapping[str, torch.Tensor]) -> None:
    """Put momentum buffers back by parameter name."""
    for name, parameter in module.named_parameters():
        if name in buffers:
            restored = torch.empty_like(parameter).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = restored


def slice_momentum(buffers: Mapping[str, torch.Tensor], larger: Supernet, smaller: Architecture) -> State:
    """The momentum buffers of the kept channels."""
    positions = group_positions(larger.architecture, smaller)
    axes = larger.tensor_axes()
    return {name: slice_tensor(buffer, axes[name], positions) for name, buffer in buffers.items()}
