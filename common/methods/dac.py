"""DAC: an architecture per budget, from the search or from files. Devices train and send back weights."""

from dataclasses import dataclass

from common.methods.contract import AVERAGED, SEARCHED, SEVERAL_COHORTS, Contract
from common.settings import Settings, setting


@dataclass(frozen=True)
class DACSettings(Settings):
    """Differentiable Architecture Compression in a federation."""

    architectures: str = setting(
        "",
        "Architecture file, folder of them, or run folder of feddac search: each device gets the largest that fits, "
        "and no search runs (dac).",
    )
    aggregation: str = setting(
        "cohort",
        "Average within each cohort (the paper); or move every weight by the mean update over all devices, whichever "
        "cohort they are in (overlap); or set it to its holders' mean weight (overlap-weights, as HeteroFL does).",
        choices=("cohort", "overlap", "overlap-weights"),
        common=True,
    )


class DAC(Contract):
    """Step `train` with a TrainingOrder."""

    name = "dac"
    settings = DACSettings
    reads = AVERAGED | SEARCHED | SEVERAL_COHORTS
    server = "server.methods.dac:DACServer"
    device = "client.methods.dac:STEPS"
