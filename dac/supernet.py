"""The network under search: an architecture's module with a gate on every prunable channel."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from common.architecture import Architecture
from common.initial_weights import fresh
from common.layout import State
from common.learning import place
from common.models.description import Axis, Dimension, GatePoint, Layer
from common.optimizers import SGD
from common.search_space import SearchSpace
from common.slicing import slice_state
from dac.gated_network import GATES, GatedNetwork, gate_name
from dac.gates import ChannelGate, gated


class Supernet:
    """A gated module of `architecture`; `gates` holds one gate per channel group and block of the search space.

    A group's gate multiplies its channels before every layer that reads them, a block's gate what the block adds:
    hooks in `network`, which has no gates, do so when `module`, which has both, runs.
    The weights are fresh ones of `seed`, see `common.initial_weights`.
    """

    def __init__(
        self,
        architecture: Architecture,
        gate_position: str,
        seed: int,
        accelerator: torch.device,
        space: SearchSpace | None = None,
        *,
        zero_init_residual: bool = False,
    ) -> None:
        self.architecture, self.description = architecture, architecture.description
        self.gate_position = gate_position
        self.accelerator = accelerator
        self.space = space or SearchSpace()
        self.network = place(fresh(architecture, seed, zero_init_residual=zero_init_residual), accelerator)
        sizes = architecture.sizes
        groups = [group.name for group in self.space.groups(self.description) if sizes[group.name]]
        self.blocks = [block for block in self.space.blocks(self.description) if block.name not in architecture.removed]
        if gate_position == "none":
            groups, self.blocks = [], []
        self.gates = {group: ChannelGate(sizes[group]) for group in groups}
        self.gates |= {block.name: ChannelGate(1) for block in self.blocks}
        self.points = self._points()
        self._hold_before_frozen_layers()
        self.module: nn.Module = GatedNetwork(self.network, self.gates).to(accelerator)
        self._hook_in()

    def _points(self) -> tuple[GatePoint, ...]:
        """Every place of every gate."""
        published = self.description.depthwise_gates if self.gate_position == "before-depthwise" else {}
        points: list[GatePoint] = []
        for group in self.gates:
            if group in self.description.block_by_name:
                continue
            if group in published:
                points.append(published[group])
            else:
                points += [
                    GatePoint(group, layer.name)
                    for layer in self.description.readers(group)
                    if layer.block not in self.architecture.removed
                ]
        return tuple(points)

    def _hold_before_frozen_layers(self) -> None:
        """Let gates stay at 1 that would be folded into weights which the network's author froze."""
        frozen = {name for name, parameter in self.network.named_parameters() if not parameter.requires_grad}
        for point in self.points:
            if f"{point.reader}.weight" in frozen:
                self.gates[point.group].hold()
        for block in self.blocks:
            if not frozen.isdisjoint({f"{block.scale}.weight", f"{block.scale}.bias"}):
                self.gates[block.name].hold()

    def _hook_in(self) -> None:
        """Have the module's forward multiply by the gates."""
        factors: dict[str, torch.Tensor] = {}

        def begin(module: nn.Module, inputs: Any) -> None:
            factors.update({group: gate.factor() for group, gate in self.gates.items()})

        self.module.register_forward_pre_hook(begin)
        for name in dict.fromkeys(point.reader for point in self.points):
            layer = self.description.layer_by_name[name]

            def read(_: nn.Module, inputs: tuple[torch.Tensor, ...], layer: Layer = layer) -> tuple[torch.Tensor, ...]:
                x, *more = inputs
                known = [(self._factor(axis, factors), axis.spread) for axis in layer.source]
                return gated(x, x.dim() - 1 if layer.kind == "linear" else 1, known), *more

            self.network.get_submodule(name).register_forward_pre_hook(read)
        for block in self.blocks:

            def scale(_: nn.Module, __: Any, output: torch.Tensor, name: str = block.name) -> torch.Tensor:
                return output * factors[name]

            self.network.get_submodule(block.scale).register_forward_hook(scale)

    def _factor(self, axis: Axis, factors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found = factors.get(axis.group)
        return torch.ones(self.architecture.sizes[axis.group], device=self.accelerator) if found is None else found

    @property
    def gate_weights(self) -> list[torch.Tensor]:
        """The trainable gate vectors, one of shape (channels,) per group and (1,) per block."""
        return [gate.weight for gate in self.gates.values()]

    def tensor_axes(self) -> dict[str, tuple[Dimension, ...]]:
        """What the dimensions of every tensor of the gated module's state dict run over."""
        own: dict[str, tuple[Dimension, ...]] = {
            f"{GATES}.{gate_name(group)}.{name}": ((Axis(group),),) if group in self.architecture.indices else ((),)
            for group in self.gates
            for name in ("weight", "saliency")
        }
        return {**self.description.tensor_axes, **own}

    def state(self) -> State:
        """The gated module's state dict, on the CPU."""
        return {name: value.detach().cpu() for name, value in self.module.state_dict().items()}

    def copy(self) -> Self:
        """An independent supernet with the same weights and gates."""
        result = type(self)(self.architecture, self.gate_position, 0, self.accelerator, self.space)
        result.module.load_state_dict(self.state())
        return result

    def extract(self, smaller: Architecture) -> State:
        """The weights of `smaller` without gates: in evaluation mode exactly this supernet with other gates at zero.

        Kept gates are folded into the layers that read them, those of blocks into the layer at their end. Before the
        depthwise convolution a zero gate still lets a constant through (the batch norm of nothing); it is folded into
        the running mean it ends in.
        """
        state = self.state()
        gates = {group: gate.weight.detach().cpu() for group, gate in self.gates.items()}
        for point in self.points:
            kept = set(smaller.indices[point.group])
            open_ = torch.tensor([channel in kept for channel in self.architecture.indices[point.group]])
            if point.constant_path is not None and not bool(open_.all()):
                eps = self.network.get_submodule(point.constant_path[0]).eps
                _fold_constant(state, point, float(eps), ~open_)  # type: ignore[arg-type]
        for name in dict.fromkeys(point.reader for point in self.points):
            layer, weight = self.description.layer_by_name[name], f"{name}.weight"
            factors = [
                gates.get(axis.group, torch.ones(self.architecture.sizes[axis.group])).repeat_interleave(axis.spread)
                for axis in layer.source
            ]
            place = 1 if layer.mixes else 0
            state[weight] = state[weight] * torch.cat(factors).view(-1, *(1,) * (state[weight].dim() - place - 1))
        for block in self.blocks:
            for name in ("weight", "bias"):
                if f"{block.scale}.{name}" in state:
                    state[f"{block.scale}.{name}"] = state[f"{block.scale}.{name}"] * gates[block.name]
        return slice_state(state, self.architecture, smaller)

    def fresh_saliency(self) -> None:
        """Forget the saliency gathered so far."""
        for gate in self.gates.values():
            gate.saliency.zero_()


def _fold_constant(state: State, point: GatePoint, eps: float, closed: torch.Tensor) -> None:
    """Subtract from the last batch norm's running mean what channels gated to zero still send there.

    `eps` is the first batch norm's. What it is given of such a channel is the depthwise convolution's bias.
    """
    assert point.constant_path is not None
    norm, convolution, last_norm = point.constant_path
    deviation = (state[f"{norm}.running_var"] + eps).sqrt()
    given = state.get(f"{point.reader}.bias", torch.zeros_like(deviation))
    constant = state[f"{norm}.bias"] + (given - state[f"{norm}.running_mean"]) / deviation * state[f"{norm}.weight"]
    constant = torch.where(closed, constant.clamp(min=0), torch.zeros_like(constant))
    state[f"{last_norm}.running_mean"] = (
        state[f"{last_norm}.running_mean"] - state[f"{convolution}.weight"].flatten(1) @ constant
    )


def make_optimizer(
    supernet: Supernet, learning_rate: float, momentum: float, weight_decay: float, gate_weight_decay: float
) -> SGD:
    """SGD with the gates in a group of their own, so that their weight decay is never silent."""
    gates = supernet.gate_weights
    known = {id(gate) for gate in gates}
    weights = [parameter for parameter in supernet.module.parameters() if id(parameter) not in known]
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": gates, "weight_decay": gate_weight_decay},
    ]
    return SGD(groups, lr=learning_rate, momentum=momentum)


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
