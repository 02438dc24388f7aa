"""The settings that commands and methods share; a method's own are in `common.methods`."""

from dataclasses import dataclass

from common.budget import OPTIMIZERS, LocalTraining
from common.settings import Settings, setting

AUTO_STEM, AUTO_STRIDES = 0, "auto"
"""What stands for strides that are yet to be chosen, by `dac.strides`."""

LONGEST_SECONDS = 30 * 24 * 3600.0
"""No wait is longer than a month; the alarms of some systems count no further than a few years."""


@dataclass(frozen=True)
class DataSettings(Settings):
    """Which images, and how they are divided among the server and the devices."""

    data: str = setting(
        "digits",
        "Data set: digits, fashion-mnist, mnist, cifar10, cifar100, cinic10, a folder, a Parquet file, hub:NAME, or "
        "package.module:function.",
        common=True,
    )
    image_size: int = setting(
        0,
        "Resize and crop all images to so many pixels a side; 0 keeps the size they have.",
        minimum=0,
        maximum=1024,
        common=True,
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
        "How devices share the data: iid, dirichlet:ALPHA, balanced-dirichlet:ALPHA (a device with its share of all "
        "images gets no more), classes:N (classes per device), shards:N (shards per device), paper-iid:N (N images per "
        "class), paper-shards:N (two single-class shards of N images), patho:N (N equal single-class shards) or "
        "diri:ALPHA (equal numbers, classes by Dirichlet).",
        pattern=r"iid|(dirichlet|balanced-dirichlet|diri):[0-9.eE+-]+|(classes|shards|paper-iid|paper-shards|patho):[0-9]+",
        common=True,
    )
    augment: str = setting(
        "auto",
        "Training augmentation: none, crop, crop+flip, crop+flip+cutout (which also blanks a square half as wide as "
        "the image), flip+jitter (colours at random); auto is crop+flip for colour images, else none.",
        choices=("auto", "none", "crop", "crop+flip", "crop+flip+cutout", "flip+jitter"),
    )


FEDERATED = ("reference_fraction", "partition")
"""Settings of the data that mean something in a federation alone."""


@dataclass(frozen=True)
class ModelSettings(Settings):
    """The base network every architecture is cut from."""

    model: str = setting(
        "mobilenet_v2",
        "Base network: mobilenet_v2, resnet8, resnet20, resnet56, resnet110, cnn, mlp, torchvision:NAME, or "
        "package.module:function, a function of input shape and classes that returns a module.",
        pattern=r"[a-z0-9_]+|torchvision:[a-z0-9_]+|[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*",
        common=True,
    )
    width: float = setting(1.0, "Width multiplier of our own base networks.", above=0.0, maximum=4.0, common=True)
    stem_stride: int = setting(
        AUTO_STEM,
        "Stride of the first convolution (mobilenet_v2); 0 chooses it, as strides does.",
        maximum=8,
        minimum=0,
    )
    strides: str = setting(
        AUTO_STRIDES,
        "Strides of the seven stages (mobilenet_v2), such as 1,1,2,2,1,2,1, those of the paper; auto chooses the least "
        "that suit the image size and fit the smallest budget.",
        pattern=rf"{AUTO_STRIDES}|[1-4](,[1-4]){{6}}",
    )


@dataclass(frozen=True)
class SearchSettings(Settings):
    """Differentiable Architecture Compression."""

    recipe: str = setting(
        "default",
        "How an architecture is found: by the search as we have it (default) or as it was published (paper), or "
        "without one, by narrowing every layer alike (uniform).",
        choices=("default", "paper", "uniform"),
    )
    search_space: str = setting(
        "all",
        "What the search may remove: channels of every layer and blocks whole (all), or channels inside blocks alone "
        "(inner, the paper).",
        choices=("all", "inner"),
        common=True,
    )
    channel_floor: int = setting(8, "Fewest channels that a reduced channel group keeps.", minimum=1)
    channel_multiple: int = setting(
        0,
        "Reduced channel groups keep a multiple of this many channels; 0 is 8, which runs fastest, in the search space "
        "all (the channel floor if that is smaller), and 1 in the search space inner and with the paper recipe.",
        minimum=0,
    )
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
    search_learning_rate: float = setting(0.05, "Learning rate of the supernet.", above=0.0)
    search_batch_size: int = setting(32, "Batch size of the search.", minimum=2)
    search_momentum: float = setting(0.9, "Momentum of the search.", minimum=0.0, maximum=0.999)
    search_weight_decay: float = setting(4e-5, "Weight decay of the supernet's weights.", minimum=0.0)
    entropy_coefficient: float = setting(
        0.1, "Weight of the gates' entropy in the loss of the search (l1 in the paper).", minimum=0.0
    )


@dataclass(frozen=True)
class TrainSettings(Settings):
    """Training one architecture without federation; not part of a federated run's configuration."""

    epochs: int = setting(50, "Passes over the training images.", minimum=0, common=True)
    batch_size: int = setting(64, "Batch size.", minimum=2, common=True)
    learning_rate: float = setting(
        0.1, "Highest learning rate; it falls to zero along a cosine.", above=0.0, common=True
    )
    warmup_share: float = setting(
        0.05, "Share of all steps over which the learning rate rises linearly.", minimum=0.0, maximum=0.9
    )
    momentum: float = setting(0.9, "Momentum.", minimum=0.0, maximum=0.999)
    nesterov: bool = setting(True, "Nesterov's form of momentum.")
    max_gradient_norm: float = setting(
        1.0, "Scale a step's gradient down to this L2 norm if it is longer; 0 does not.", minimum=0.0
    )
    weight_decay: float = setting(
        4e-5, "Weight decay of convolution and linear weights; norms and biases have none.", minimum=0.0
    )
    label_smoothing: float = setting(0.1, "Share of each label spread over all classes.", minimum=0.0, maximum=0.9)
    distillation: float = setting(
        0.7,
        "With a teacher, the share of the loss that is the distance from its answers.",
        minimum=0.0,
        maximum=1.0,
        common=True,
    )
    bf16: bool = setting(False, "Compute in bfloat16 where that is safe (about twice as fast on recent GPUs).")


@dataclass(frozen=True)
class FleetSettings(Settings):
    """The devices and what they can afford."""

    devices: int = setting(8, "Number of devices.", minimum=1, common=True)
    fleet: str = setting(
        "microcontroller,large-microcontroller,single-board,phone,workstation",
        "Device profiles, dealt to the devices in turn, or a TOML file of devices.",
        common=True,
    )
    max_latency_ms: float = setting(
        20.0,
        "Time one image may take on a device that declares no budget: by its profile's rates, or as measured on it.",
        above=0.0,
    )
    max_macs: str = setting("", "MACs per image every device must stay below (30M, 1.2e6).", common=True)
    max_params: str = setting(
        "", "Parameters every device must stay below: a count, or their size (500k, 77KB:int8).", common=True
    )
    max_memory: str = setting(
        "",
        "Peak activation memory every device must stay below, in float32 or as named (512KB, 64KB:int8).",
        common=True,
    )
    max_training_memory: str = setting(
        "",
        "Memory every device must stay below while it trains: weights, gradients, momentum and what the backward pass "
        "needs, at the local batch size (8MB).",
    )
    max_cohorts: int = setting(0, "Merge near budgets into at most this many; 0 keeps them all.", minimum=0)


@dataclass(frozen=True)
class MethodSettings(Settings):
    """How devices with different budgets learn together."""

    method: str = setting(
        "dac",
        "dac: an architecture per budget from the search; fedavg: one model for all; fedprox: fedavg with devices kept "
        "near what they were sent; heterofl: the first channels of each layer, as many as the budget admits; fedgkt: "
        "small networks on the devices and a large one on the server that teach each other; fednas: cells "
        "that the devices search for, then train; autoflip: one model without the weights that no device moves; or a "
        "method of your own as package.module:Class (docs/add-a-method.md).",
        pattern=r"[a-z][a-z0-9-]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*",
        common=True,
    )
    pretraining_epochs: int = setting(
        30,
        "Epochs all methods but dac and fednas, which search, train on the reference set before the first round.",
        minimum=0,
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

    rounds: int = setting(10, "Federated rounds.", minimum=0, common=True)
    local_epochs: str = setting(
        "2",
        "Epochs a device trains per round: a number, or a range such as 3-5 drawn anew for each.",
        pattern=r"[1-9][0-9]*(-[1-9][0-9]*)?",
        common=True,
    )
    local_batch_size: int = setting(16, "Batch size on the devices.", minimum=2)
    optimizer: str = setting(
        "sgd",
        "Optimizer on the devices; nesterov is sgd with Nesterov's momentum.",
        choices=tuple(OPTIMIZERS),
    )
    learning_rate: float = setting(0.01, "Learning rate on the devices.", above=0.0)
    learning_rate_decay: float = setting(
        1.0, "Factor on the devices' learning rate after each round.", above=0.0, maximum=1.0
    )
    momentum: float = setting(
        0.5,
        "Momentum on the devices; of adam and amsgrad the decay of the mean gradient (beta 1, usually 0.9).",
        minimum=0.0,
        maximum=0.999,
    )
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
    device_evaluation: bool = setting(
        True,
        "After the last round every device scores its model on a tenth of its own images, which it holds out of "
        "training; devices with fewer than 50 hold none out.",
    )
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
    handshake_timeout: float = setting(
        180.0, "Seconds to wait for the devices to report.", above=0.0, maximum=LONGEST_SECONDS
    )
    handshake_every: int = setting(
        0, "Ask all devices for their budget again every this many rounds; 0 asks each once.", minimum=0
    )
    round_timeout: float = setting(
        600.0,
        "Seconds a round may take before late replies are dropped; in a simulation, seconds without any reply.",
        above=0.0,
        maximum=LONGEST_SECONDS,
    )

    @property
    def local_training(self) -> LocalTraining:
        """How devices train, as far as it takes memory."""
        return LocalTraining.of(self.local_batch_size, self.optimizer, self.momentum)


@dataclass(frozen=True)
class RunSettings(Settings):
    """How and where the run happens."""

    seed: int = setting(
        0, "Seed of partitions, search, sampling and training.", minimum=0, maximum=2**63 - 1, common=True
    )
    out: str = setting("", "Run folder (default: runs/DATE-TIME).", common=True)
    accelerator: str = setting("auto", "Where tensors live.", choices=("auto", "cpu", "cuda"), common=True)
