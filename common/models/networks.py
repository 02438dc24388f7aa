"""Which networks there are, by name: ours, torchvision's, and a user's own.

`torchvision:NAME` is a classification network of torchvision, `package.module:function` any function that returns a
module for (input shape, classes), and what begins with `darts_` a network of cells (`common.models.darts`). A message
names a network too, and nothing may be imported because a stranger said so: names that are not ours are looked up only
among those that this process was configured with (`allow_network`).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models import bottleneck, cnn, darts, mlp, mobilenet_v2, resnet, two_cnn
from common.models.description import BaseNetwork
from common.models.usable import first_line, usable

TORCHVISION = "torchvision:"
WITH_AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision that are trained with further classifiers, which are left out here."""


@dataclass(frozen=True)
class Factory:
    """How a base network is built; bases of one `identity` give the same network.

    A `foreign` one initialises its weights as its author has it, and has neither width nor strides.
    """

    build: Callable[[BaseNetwork], nn.Module]
    identity: Callable[[BaseNetwork], Hashable] = lambda base: base
    foreign: bool = False


def _residual(factory: Callable[[BaseNetwork], nn.Module]) -> Factory:
    return Factory(factory, lambda base: (base.input_shape, base.classes, resnet.channels(base)))


OWN = {
    "mobilenet_v2": Factory(
        mobilenet_v2.MobileNetV2,
        lambda base: (base.input_shape, base.classes, mobilenet_v2.channels(base), base.stem_stride, base.strides),
    ),
    "cnn": Factory(cnn.ConvNet),
    "mlp": Factory(mlp.Perceptron),
    "two_cnn": Factory(two_cnn.TwoCNN),
    **{name: _residual(factory) for name, factory in {**resnet.FACTORIES, **bottleneck.FACTORIES}.items()},
}
_OFFERED = [name for name in OWN if name not in bottleneck.FACTORIES]  # FedGKT's halves serve nobody else
_allowed: set[str] = set()


def allow_network(model: str) -> None:
    """Let this process build the network `model`: call it with what its own configuration says, never a message."""
    if ":" in model:
        _allowed.add(model)


def allowed_networks() -> frozenset[str]:
    """The names given to `allow_network`: a process that this one starts has to be told of them."""
    return frozenset(_allowed)


def factory_of(base: BaseNetwork) -> Factory:
    """The network of a base; raises ArchitectureError if there is none of its name, or it may not be built here."""
    if base.model in OWN:
        return OWN[base.model]
    if base.model.startswith(darts.PREFIX):
        darts.Design.of(base.model)
        _require_no_shape(base)
        return Factory(darts.build_darts)
    cut = bottleneck.clipped_factory(base.model)
    if cut is not None:
        return _residual(cut)
    if base.model not in _allowed:
        raise ArchitectureError(
            f"unknown base network {base.model!r:.60}; known are {', '.join(_OFFERED)}, and a torchvision:NAME or "
            "package.module:function that is this program's own setting --model"
        )
    _require_no_shape(base)
    return Factory(partial(_checked, _factory(base.model)), foreign=True)


def _require_no_shape(base: BaseNetwork) -> None:
    if base.width != 1 or (base.stem_stride, base.strides) != (BaseNetwork.stem_stride, BaseNetwork.strides):
        raise ArchitectureError(f"{base.model} has neither --width nor --strides; leave them out")


def skeleton_of(base: BaseNetwork) -> nn.Module:
    """The full module on the meta device, in which nothing has storage."""
    factory = factory_of(base)
    if not factory.foreign:
        with torch.device("meta"):
            return factory.build(base)
    try:
        with torch.device("meta"):
            module = factory.build(base)
    except Exception:  # some constructors compute with real numbers; these are built in full and emptied
        module = factory.build(base)
    return module.to("meta")


def _checked(factory: Callable[[tuple[int, int, int], int], Any], base: BaseNetwork) -> nn.Module:
    try:
        module = factory(base.input_shape, base.classes)
    except ArchitectureError:
        raise
    except Exception as error:  # whatever a stranger's constructor raises
        called = f"with the input shape {base.input_shape} and {base.classes} classes"
        raise ArchitectureError(f"{base.model} failed when it was called {called}: {first_line(error)}") from None
    return usable(base.model, module)


@lru_cache(maxsize=16)
def _factory(model: str) -> Callable[[tuple[int, int, int], int], Any]:
    if model.startswith(TORCHVISION):
        return partial(_from_torchvision, model.removeprefix(TORCHVISION))
    name, _, function = model.partition(":")
    try:
        found = getattr(import_module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArchitectureError(f"cannot find the network {model}: {error}; is its package installed here?") from None
    except Exception as error:  # whatever a stranger's module raises when it is imported
        raise ArchitectureError(f"{name}, which {model} is in, cannot be imported: {first_line(error)}") from None
    if not callable(found):
        raise ArchitectureError(f"{model} is no function that returns a network")
    return found  # type: ignore[no-any-return]


def _from_torchvision(name: str, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ArchitectureError(f"torchvision has no network {name!r}; see torchvision.models.list_models()")
    if input_shape[0] != 3:
        raise ArchitectureError(f"torchvision:{name} takes colour images, not {input_shape[0]} channel(s)")
    given: dict[str, bool] = {}
    if name in WITH_AUXILIARY:  # in training they return the logits of two or three classifiers
        given = {"aux_logits": False, "init_weights": True}
    module: nn.Module = models.get_model(name, weights=None, num_classes=classes, **given)
    return module
