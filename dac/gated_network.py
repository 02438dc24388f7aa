"""A network and its gates side by side, so that a network that runs all its children does not run its gates."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from dac.gates import ChannelGate

GATES = "channel_gates"  # the submodule that holds them
_PREFIX = "network."


class GatedNetwork(nn.Module):
    """Runs `network`, which hooks multiply by the gates; parameters and state dicts hold those of both.

    The network's tensors keep their own names there, and the gates', which come last, begin with `channel_gates.`.
    """

    def __init__(self, network: nn.Module, gates: Mapping[str, ChannelGate]) -> None:
        super().__init__()
        self.network = network
        self.channel_gates = nn.Module()
        for group, gate in gates.items():
            self.channel_gates.add_module(gate_name(group), gate)
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) for images (B, C, H, W)."""
        logits: torch.Tensor = self.network(images)
        return logits

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As of every module, under the names of the state dict."""
        for name, parameter in super().named_parameters("", recurse, remove_duplicate):
            yield (f"{prefix}." if prefix else "") + name.removeprefix(_PREFIX), parameter


def gate_name(group: str) -> str:
    """A group's name as the name of a module, which cannot hold a dot."""
    return group.replace(".", "/")


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in list(state):  # all of them, so that their order stays
        state[prefix + name.removeprefix(prefix).removeprefix(_PREFIX)] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in list(state):
        if not name.removeprefix(prefix).startswith(f"{GATES}."):
            state[prefix + _PREFIX + name.removeprefix(prefix)] = state.pop(name)
