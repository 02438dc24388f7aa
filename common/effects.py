"""A changed setting that cannot have an effect is refused by its name: nothing is silently without effect.

A setting has none if the chosen method does not read it, or if another setting leaves nothing for it to do; CONDITIONS
lists the second kind. Only what follows from the settings alone is there: not what depends on the data, on the devices,
or on how large a number is (a `patience` longer than the run may serve a resumption with more rounds).
"""

from collections.abc import Callable
from dataclasses import dataclass

from common.config import Config
from common.errors import ConfigurationError
from common.methods import CONTRACTS, contract_of
from common.methods.autoflip import AutoFLIPSettings
from common.methods.contract import SEARCHED
from common.methods.dac import DACSettings
from common.methods.fedgkt import FedGKTSettings
from common.methods.fednas import FedNASSettings

FEDNAS_SEARCH = (
    "fednas-search-rounds",
    "fednas-search-epochs",
    "fednas-warmup-rounds",
    "fednas-architecture-learning-rate",
    "fednas-architecture-weight-decay",
    "fednas-training-coefficient",
    "fednas-validation-coefficient",
)


@dataclass(frozen=True)
class Condition:
    """What must be so for some settings to have an effect; `without` says in words what is missing where it is not.

    It is asked of methods that read the setting `of`, or of all if there is none: a stranger's among them.
    """

    keys: tuple[str, ...]
    fulfilled: Callable[[Config], bool]
    without: str
    of: str = ""


CONDITIONS = (
    Condition(
        ("stem-stride", "strides"),
        lambda config: config.model.model == "mobilenet_v2",
        "without --model mobilenet_v2",
    ),
    Condition(
        ("search-space", "channel-floor", "channel-multiple", "entropy-coefficient"),
        lambda config: config.search.recipe != "uniform",
        "with --recipe uniform, which narrows every layer alike",
        of="search-space",
    ),
    Condition(
        ("trim-share",),
        lambda config: config.federation.robust_aggregation == "trimmed-mean",
        "without --robust-aggregation trimmed-mean",
    ),
    Condition(
        ("local-dp-epsilon", "local-dp-delta"),
        lambda config: config.federation.local_dp_clipping_norm > 0,
        "without --local-dp-clipping-norm",
    ),
    Condition(
        ("min-devices",),
        lambda config: config.federation.fraction < 1 or _few_explore(config),
        "without a --fraction below 1, for all devices of a cohort train",
    ),
    Condition(
        ("batch-norm",),
        lambda config: config.method.batch_norm != "local" or _averages_across_cohorts(config),
        "without cohorts that average with each other",
    ),
    Condition(
        ("autoflip-explorers", "autoflip-exploration-epochs", "autoflip-patience", "autoflip-normalisation"),
        lambda config: _explores(config),
        "with --autoflip-guidance random, for nobody explores",
        of="autoflip-guidance",
    ),
    Condition(
        ("channel-floor",),
        lambda config: config.of(AutoFLIPSettings).autoflip_mode != "unstructured",
        "with --autoflip-mode unstructured, which removes no channel",
        of="autoflip-mode",
    ),
    Condition(
        ("optimizer",),
        lambda config: _is_itself(config.federation.optimizer, config),
        "without a --momentum above 0",
    ),
    Condition(
        ("fedgkt-server-optimizer",),
        lambda config: _is_itself(config.of(FedGKTSettings).fedgkt_server_optimizer, config),
        "without a --momentum above 0",
        of="fedgkt-server-optimizer",
    ),
    Condition(
        ("fedgkt-temperature",),
        lambda config: config.of(FedGKTSettings).fedgkt_alpha > 0,
        "with --fedgkt-alpha 0, which distils nothing",
        of="fedgkt-alpha",
    ),
    Condition(
        ("distillation-learning-rate",),
        lambda config: config.method.distillation_epochs > 0,
        "without --distillation-epochs",
    ),
    Condition(
        (*sorted(SEARCHED - {"search-batch-size"}), "max-cohorts"),
        lambda config: not config.of(DACSettings).architectures,
        "with --architectures, for nothing is searched",
        of="architectures",
    ),
    Condition(
        ("search-batch-size",),
        lambda config: not config.of(DACSettings).architectures or config.method.distillation_epochs > 0,
        "with --architectures, for nothing is searched",
        of="architectures",
    ),
    Condition(
        FEDNAS_SEARCH,
        lambda config: not config.of(FedNASSettings).fednas_genotype,
        "with --fednas-genotype, for nothing is searched",
    ),
    Condition(
        ("fednas-lowest-learning-rate",),
        lambda config: config.federation.local_epochs != "1" or config.of(FedNASSettings).fednas_search_epochs > 1,
        "with --local-epochs 1, for a round's first epoch has the learning rate itself",
        of="fednas-lowest-learning-rate",
    ),
    Condition(
        ("fednas-architecture-learning-rate", "fednas-architecture-weight-decay"),
        lambda config: _moves_its_cells(config.of(FedNASSettings)),
        "with both --fednas-training-coefficient and --fednas-validation-coefficient 0: the architecture stays",
        of="fednas-training-coefficient",
    ),
    Condition(
        ("pretraining-epochs",),
        lambda config: config.federation.initial_weights == "inherited",
        "with --initial-weights random",
        of="pretraining-epochs",
    ),
    Condition(
        (
            "search-learning-rate",
            "search-momentum",
            "search-weight-decay",
            "recipe",
            "fine-tune-epochs",
            "joint-epochs",
        ),
        lambda config: _pretrains(config),
        "without pretraining: it needs --pretraining-epochs and --initial-weights inherited",
        of="pretraining-epochs",
    ),
    Condition(
        ("search-batch-size",),
        lambda config: _pretrains(config) or config.method.distillation_epochs > 0,
        "without pretraining: it needs --pretraining-epochs and --initial-weights inherited",
        of="pretraining-epochs",
    ),
)


def without_effect(config: Config) -> dict[str, str]:
    """The settings that were changed and cannot have an effect, each with the reason as one line."""
    contract = contract_of(config.method.method)
    defaults = Config.from_mapping({"method": config.method.method}).to_mapping()
    changed = {key: value for key, value in config.to_mapping().items() if value != defaults[key]}
    found = {}
    for key, value in changed.items():
        if contract.reads_setting(key):
            continue
        readers = [name for name, one in CONTRACTS.items() if one.reads_setting(key)]
        found[key] = (
            f"method {contract.name} does not read {key}, so {key} = {value!r} would have no effect: leave --{key} out"
            + (f", or take --method {' or '.join(readers)}" if readers else "")
        )
    for condition in CONDITIONS:
        if (condition.of and not contract.reads_setting(condition.of)) or condition.fulfilled(config):
            continue
        for key in condition.keys:
            if key in changed:
                found.setdefault(key, no_effect(key, repr(changed[key]), condition.without))
    return found


def no_effect(key: str, shown: str, without: str) -> str:
    """The line about a changed setting, whose value is `shown`; `without` says in words what it lacks."""
    return f"{key} = {shown} would have no effect {without}: leave --{key} out"


def require_effect(config: Config) -> None:
    """Raise ConfigurationError for a setting that was changed and cannot have an effect."""
    for reason in without_effect(config).values():
        raise ConfigurationError(reason)


def _is_itself(optimizer: str, config: Config) -> bool:
    """Nesterov's momentum is none where there is no momentum."""
    return optimizer != "nesterov" or config.federation.momentum > 0


def _explores(config: Config) -> bool:
    return config.of(AutoFLIPSettings).autoflip_guidance == "exploration"


def _moves_its_cells(settings: FedNASSettings) -> bool:
    return settings.fednas_training_coefficient > 0 or settings.fednas_validation_coefficient > 0


def _few_explore(config: Config) -> bool:
    reads = contract_of(config.method.method).reads_setting("autoflip-explorers")
    return reads and _explores(config) and config.of(AutoFLIPSettings).autoflip_explorers < 1


def _averages_across_cohorts(config: Config) -> bool:
    """Of a method that is not ours nothing is known."""
    contract = contract_of(config.method.method)
    if contract not in CONTRACTS.values():
        return True
    if contract.reads_setting("aggregation"):
        return config.of(DACSettings).aggregation != "cohort"
    return contract.reads_setting("max-cohorts")


def _pretrains(config: Config) -> bool:
    return config.method.pretraining_epochs > 0 and config.federation.initial_weights == "inherited"
