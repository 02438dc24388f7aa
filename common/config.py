"""Every setting of FedDAC, defined once.

Each field below is at the same time a command-line flag (`--local-epochs`), a key of a `--config` TOML file,
and a key of `[tool.flwr.app.config]` (`local-epochs`). Flower carries only int, float, bool and str and checks
none of them, so `from_mapping` coerces and validates whatever it is given.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self, TypeAlias, TypeVar

from common.errors import ConfigurationError

Scalar: TypeAlias = bool | int | float | str
Group = TypeVar("Group", bound="Settings")


def setting(
    default: Scalar,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    pattern: str = "",
) -> Any:
    """A dataclass field with its help text and the values it accepts.

    `minimum` and `maximum` are inclusive, `above` is exclusive; `pattern` must match the whole string.
    """
    limits = {"choices": choices, "minimum": minimum, "above": above, "maximum": maximum, "pattern": pattern}
    return field(default=default, metadata={"help": help, **limits})


class Settings:
    """Base of the frozen settings dataclasses: validation, and conversion from and to flat TOML keys."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _coerce(key_of(one.name), getattr(self, one.name), one.default, one.metadata)
            object.__setattr__(self, one.name, value)

    @classmethod
    def keys(cls) -> list[str]:
        """The TOML keys of this group, in order."""
        return [key_of(one.name) for one in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def to_mapping(self) -> dict[str, Scalar]:
        """Flat `key: value` pairs, ready for TOML."""
        return {key_of(one.name): getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Settings from kebab-case keys; a missing key keeps its default.

        Raises ConfigurationError for an unknown key (with the nearest known one) or a bad value.
        """
        check_known(mapping, cls.keys())
        return cls(**{name_of(key): value for key, value in mapping.items()})


@dataclass(frozen=True)
class DataSettings(Settings):
    """Which images, and how they are divided among the server and the devices."""

    data: str = setting(
        "digits", "Data set: digits, fashion-mnist, mnist, cifar10, cifar100, a folder, a Parquet file, or hub:NAME."
    )
    data_folder: str = setting("", "Where downloads and decoded images are kept (default: ~/.cache/feddac).")
    train_images: int = setting(0, "Use only this many training images, a stratified choice; 0 takes all.", minimum=0)
    test_images: int = setting(0, "Use only this many test images, a stratified choice; 0 takes all.", minimum=0)
    reference_fraction: float = setting(
        0.3, "Share of the training images the server keeps as the reference set of the search.", above=0.0, maximum=0.9
    )
    validation_fraction: float = setting(
        0.2, "Share of the reference set used to choose, never to train.", above=0.0, maximum=0.9
    )
    partition: str = setting(
        "iid",
        "How devices share the data: iid, dirichlet:ALPHA, classes:N (classes per device), shards:N (shards per "
        "device), paper-iid:N (N images per class) or paper-shards:N (two single-class shards of N images).",
        pattern=r"iid|dirichlet:[0-9.eE+-]+|(classes|shards|paper-iid|paper-shards):[0-9]+",
    )
    augment: str = setting(
        "auto",
        "Training augmentation: none, crop, crop+flip; auto is crop+flip for colour images, else crop.",
        choices=("auto", "none", "crop", "crop+flip"),
    )


@dataclass(frozen=True)
class ModelSettings(Settings):
    """The base network every architecture is cut from."""

    model: str = setting(
        "mobilenet_v2",
        "Base network: mobilenet_v2, resnet8, resnet20, resnet56, resnet110, cnn, mlp, torchvision:NAME, or "
        "package.module:function, a function of input shape and classes that returns a module.",
        pattern=r"[a-z0-9_]+|torchvision:[a-z0-9_]+|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*",
    )
    width: float = setting(1.0, "Width multiplier of our own base networks.", above=0.0, maximum=4.0)
    stem_stride: int = setting(1, "Stride of the first convolution (mobilenet_v2).", minimum=1, maximum=4)
    strides: str = setting("1,1,2,2,1,2,1", "Strides of the seven stages (mobilenet_v2).", pattern=r"[1-4](,[1-4]){6}")


@dataclass(frozen=True)
class SearchSettings(Settings):
    """Differentiable Architecture Compression."""

    preset: str = setting("default", "Search recipe; paper is the published one.", choices=("default", "paper"))
    search_space: str = setting(
        "inner",
        "What the search may remove: channels inside blocks (inner, the paper), or channels of every layer and blocks "
        "whole (all).",
        choices=("inner", "all"),
    )
    channel_floor: int = setting(8, "Fewest channels that a reduced channel group keeps.", minimum=1)
    channel_multiple: int = setting(1, "Reduced channel groups keep a multiple of this many channels.", minimum=1)
    warmup_epochs: int = setting(15, "Epochs the full supernet trains before the first removal.", minimum=0)
    epochs_per_step: int = setting(2, "Epochs of training after each removal step.", minimum=0)
    step_share: float = setting(
        0.25, "Largest share of the binding resource removed in one step.", above=0.0, maximum=1.0
    )
    fine_tune_epochs: int = setting(3, "Epochs each found architecture trains on the reference set.", minimum=0)
    joint_epochs: int = setting(
        0,
        "Epochs all found architectures (or slices of heterofl) then train together as parts of one network, so that "
        "what they share has one value; for overlap.",
        minimum=0,
    )
    search_learning_rate: float = setting(0.02, "Learning rate of the supernet.", above=0.0)
    search_batch_size: int = setting(32, "Batch size of the search.", minimum=2)
    search_momentum: float = setting(0.9, "Momentum of the search.", minimum=0.0, maximum=0.999)
    search_weight_decay: float = setting(4e-5, "Weight decay of the supernet's weights.", minimum=0.0)
    entropy_coefficient: float = setting(
        0.1, "Weight of the gates' entropy in the loss of the search (l1 in the paper).", minimum=0.0
    )


@dataclass(frozen=True)
class TrainSettings(Settings):
    """Training one architecture without federation; not part of a federated run's configuration."""

    epochs: int = setting(50, "Passes over the training images.", minimum=0)
    batch_size: int = setting(64, "Batch size.", minimum=2)
    learning_rate: float = setting(0.1, "Highest learning rate; it falls to zero along a cosine.", above=0.0)
    warmup_share: float = setting(
        0.05, "Share of all steps over which the learning rate rises linearly.", minimum=0.0, maximum=0.9
    )
    momentum: float = setting(0.9, "Momentum.", minimum=0.0, maximum=0.999)
    nesterov: bool = setting(True, "Nesterov's form of momentum.")
    weight_decay: float = setting(
        4e-5, "Weight decay of convolution and linear weights; norms and biases have none.", minimum=0.0
    )
    label_smoothing: float = setting(0.1, "Share of each label spread over all classes.", minimum=0.0, maximum=0.9)
    distillation: float = setting(
        0.7, "With a teacher, the share of the loss that is the distance from its answers.", minimum=0.0, maximum=1.0
    )
    bf16: bool = setting(False, "Compute in bfloat16 where that is safe (about twice as fast on recent GPUs).")


@dataclass(frozen=True)
class FleetSettings(Settings):
    """The devices and what they can afford."""

    devices: int = setting(8, "Number of devices.", minimum=1)
    fleet: str = setting(
        "microcontroller,large-microcontroller,single-board,phone,workstation",
        "Device profiles, dealt to the devices in turn, or a TOML file of devices.",
    )
    target_latency_ms: float = setting(
        20.0, "Time one inference may take; turns a profile's speed into a MAC budget.", above=0.0
    )
    max_macs: str = setting("", "MACs per image every device must stay below (30M, 1.2e6).")
    max_params: str = setting("", "Parameters every device must stay below.")
    max_memory: str = setting("", "Peak activation memory every device must stay below (512KB, 2MiB).")
    max_cohorts: int = setting(0, "Merge near budgets into at most this many; 0 keeps them all.", minimum=0)


@dataclass(frozen=True)
class MethodSettings(Settings):
    """How devices with different budgets learn together."""

    method: str = setting(
        "dac",
        "dac: an architecture per budget from the search; fedavg: one model for all; heterofl: the first channels of "
        "each layer, as many as the budget admits.",
        choices=("dac", "fedavg", "heterofl"),
    )
    architectures: str = setting(
        "",
        "Architecture file, or folder of them, as feddac search writes them: each device gets the largest that fits, "
        "and no search runs (dac).",
    )
    fedavg_model: str = setting(
        "smallest",
        "The one model of fedavg: the largest that every device can hold (smallest), the base network whatever the "
        "budgets (largest, an oracle), or the base network on those devices alone that can hold it (drop-weak).",
        choices=("smallest", "largest", "drop-weak"),
    )
    pretraining_epochs: int = setting(
        30, "Epochs fedavg and heterofl train on the reference set before the first round, as dac searches.", minimum=0
    )
    aggregation: str = setting(
        "cohort",
        "Average within each cohort (the paper); or move every weight by the mean update over all devices, whichever "
        "cohort they are in (overlap); or set it to its holders' mean weight (overlap-weights, as HeteroFL does).",
        choices=("cohort", "overlap", "overlap-weights"),
    )
    batch_norm: str = setting(
        "average",
        "Batch norms are averaged like other weights (average), never across cohorts (local), or averaged and their "
        "statistics measured anew on the reference set, before a test (recalibrate) or after every round, and devices "
        "train with these instead of their own batches' (frozen).",
        choices=("average", "local", "recalibrate", "frozen"),
    )
    masked_loss: str = setting(
        "none",
        "What a device does about classes it has no image of: nothing (none), leave their logits out of the loss "
        "(exclude), or set them to zero (zero, as HeteroFL does).",
        choices=("none", "exclude", "zero"),
    )
    distillation_epochs: int = setting(
        0, "Epochs every cohort learns the largest cohort's answers to the reference set after aggregation.", minimum=0
    )
    distillation_learning_rate: float = setting(0.001, "Learning rate of the distillation.", above=0.0)


@dataclass(frozen=True)
class FederationSettings(Settings):
    """Rounds of local training and aggregation."""

    rounds: int = setting(10, "Federated rounds.", minimum=0)
    local_epochs: str = setting(
        "2",
        "Epochs a device trains per round: a number, or a range such as 3-5 drawn anew for each.",
        pattern=r"[1-9][0-9]*(-[1-9][0-9]*)?",
    )
    local_batch_size: int = setting(16, "Batch size on the devices.", minimum=2)
    learning_rate: float = setting(0.01, "Learning rate on the devices.", above=0.0)
    momentum: float = setting(0.5, "Momentum on the devices.", minimum=0.0, maximum=0.999)
    weight_decay: float = setting(0.0, "Weight decay on the devices.", minimum=0.0)
    max_gradient_norm: float = setting(
        0.0, "Scale a step's gradient on the devices down to this L2 norm if it is longer; 0 does not.", minimum=0.0
    )
    fraction: float = setting(1.0, "Share of each cohort that trains in a round.", above=0.0, maximum=1.0)
    min_devices: int = setting(1, "Fewest devices of a cohort that train in a round.", minimum=1)
    initial_weights: str = setting(
        "inherited", "Start from the weights the search left, or from scratch.", choices=("inherited", "random")
    )
    test_batch_size: int = setting(256, "Batch size of evaluation.", minimum=1)
    evaluate_every: int = setting(1, "Evaluate every this many rounds.", minimum=1)
    device_evaluation: bool = setting(False, "Also evaluate each cohort's model on its devices' own held-out data.")
    patience: int = setting(
        0, "Stop after this many evaluations without a better validation accuracy; 0 never stops.", minimum=0
    )
    robust_aggregation: str = setting(
        "none",
        "Combine each cohort's models by the sample-weighted mean (none), or per coordinate by a median or trimmed "
        "mean that a minority of hostile devices cannot steer; needs three devices in a cohort.",
        choices=("none", "median", "trimmed-mean"),
    )
    trim_share: float = setting(
        0.2, "Share of the models a trimmed mean drops at either end, at least one.", above=0.0, maximum=0.49
    )
    clip_norm: float = setting(
        0.0, "Limit each device's update to this many times its cohort's median update norm; 0 does not.", minimum=0.0
    )
    max_device_share: float = setting(
        1.0, "Largest share one device's samples may have in its cohort's mean.", above=0.0, maximum=1.0
    )
    local_dp_clipping_norm: float = setting(
        0.0,
        "L2 norm devices clip their update to before adding local differential privacy's noise; 0 adds none.",
        minimum=0.0,
    )
    local_dp_epsilon: float = setting(
        1.0, "Privacy loss per round of local differential privacy.", above=0.0, maximum=1.0
    )
    local_dp_delta: float = setting(
        1e-5, "Probability that local differential privacy's epsilon does not hold.", above=0.0, maximum=0.1
    )
    handshake_timeout: float = setting(180.0, "Seconds to wait for the devices to report.", above=0.0)
    handshake_every: int = setting(
        0, "Ask all devices for their budget again every this many rounds; 0 asks each once.", minimum=0
    )
    round_timeout: float = setting(600.0, "Seconds a round may take before late replies are dropped.", above=0.0)


@dataclass(frozen=True)
class RunSettings(Settings):
    """How and where the run happens."""

    seed: int = setting(0, "Seed of partitions, search, sampling and training.", minimum=0)
    out: str = setting("", "Run folder (default: runs/DATE-TIME).")
    accelerator: str = setting("auto", "Where tensors live.", choices=("auto", "cpu", "cuda"))


GROUPS: tuple[type[Settings], ...] = (
    DataSettings,
    ModelSettings,
    SearchSettings,
    FleetSettings,
    MethodSettings,
    FederationSettings,
    RunSettings,
)


@dataclass(frozen=True)
class Config:
    """All settings of a federated run."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    federation: FederationSettings = field(default_factory=FederationSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """A configuration from flat kebab-case keys; raises ConfigurationError as `Settings.from_mapping` does."""
        check_known(mapping, chain.from_iterable(group.keys() for group in GROUPS))

        def part(group: type[Group]) -> Group:
            known = set(group.keys())
            return group.from_mapping({key: value for key, value in mapping.items() if key in known})

        return cls(
            part(DataSettings),
            part(ModelSettings),
            part(SearchSettings),
            part(FleetSettings),
            part(MethodSettings),
            part(FederationSettings),
            part(RunSettings),
        )

    def to_mapping(self) -> dict[str, Scalar]:
        """Flat `key: value` pairs in the order of the groups."""
        groups = [self.data, self.model, self.search, self.fleet, self.method, self.federation, self.run]
        return {key: value for group in groups for key, value in group.to_mapping().items()}


def key_of(name: str) -> str:
    """`local_epochs` -> `local-epochs`; the only place where the two spellings meet, with `name_of`."""
    return name.replace("_", "-")


def name_of(key: str) -> str:
    """`local-epochs` -> `local_epochs`."""
    return key.replace("-", "_")


def check_known(mapping: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise ConfigurationError for the first key of `mapping` that is not known, naming the nearest known one."""
    known = list(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
            raise ConfigurationError(f"unknown setting {key!r}: {hint}")


def _coerce(key: str, value: Any, default: Any, limits: Mapping[str, Any]) -> Scalar:
    kind = type(default)
    try:
        if kind is bool:
            result: Scalar = _boolean(value)
        elif kind is int:
            result = int(value)
            if isinstance(value, bool) or (isinstance(value, float) and result != value):
                raise ValueError
        elif kind is float:
            if isinstance(value, bool):
                raise ValueError
            result = float(value)
        else:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            result = str(value)
    except (TypeError, ValueError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ConfigurationError(f"{key} must be {wanted}, not {value!r}") from None
    _check_limits(key, result, limits)
    return result


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _check_limits(key: str, value: Scalar, limits: Mapping[str, Any]) -> None:
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigurationError(f"{key} must be one of {', '.join(limits['choices'])}, not {value!r}")
    if limits["pattern"] and not re.fullmatch(limits["pattern"], str(value)):
        raise ConfigurationError(f"{key} cannot be {value!r}; see the help of --{key}")
    if isinstance(value, str | bool):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigurationError(f"{key} must be a finite number, not {value}")
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise ConfigurationError(f"{key} must be at least {limits['minimum']:g}, not {value}")
    if limits["above"] is not None and value <= limits["above"]:
        raise ConfigurationError(f"{key} must be above {limits['above']:g}, not {value}")
    if limits["maximum"] is not None and value > limits["maximum"]:
        raise ConfigurationError(f"{key} must be at most {limits['maximum']:g}, not {value}")
