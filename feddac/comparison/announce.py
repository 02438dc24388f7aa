"""What a comparison will do and how long that may take, said before it starts."""

import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from common.architecture import Architecture
from common.budget import BOUNDED
from common.config import Config
from common.data.sources import load
from common.errors import FedDACError
from common.fleet import virtual_fleet
from common.learning import pick_accelerator
from common.methods import contract_of
from common.methods.fedavg import FedAvgSettings
from common.models.description import BaseNetwork
from common.wording import duration, plain, plural
from feddac.comparison.plan import Experiment
from feddac.comparison.remaining import unfinished
from feddac.comparison.sharing import search_key
from server.reference import base_network
from server.sampling import epoch_range
from simulation.preflight import check_budgets

BATCH = 32
TIME_EXPONENT = 0.75
"""Small networks take longer than their MACs say: MobileNetV2 at 6 % of them an eighth of the time, not a sixteenth."""
START_SECONDS = 6.0
"""What the process of a run takes before its work begins, most of it to import PyTorch."""


def announcement(plan: Experiment, out: Path | None, jobs: int) -> str:
    """How many runs there are, how many of them are done, and about how long the others take, `jobs` at a time.

    Without a folder nothing is done yet.
    """
    pending = unfinished(plan.runs, out)
    counts = plural(len(plan.methods), "method"), plural(len(plan.seeds), "seed"), plural(len(plan.cells), "setting")
    done = len(plan.runs) - len(pending)
    text = f"{plural(len(plan.runs), 'run')} ({', '.join(counts)})" + (f", {done} of them done" if done else "")
    if not pending:
        return text
    try:
        seconds = estimated_seconds([run.config for run in pending]) / min(jobs, len(pending))
    except FedDACError as error:
        return f"{text}; how long they take is not known: {error}"
    rough = float(f"{max(seconds, 1.0):.1g}")
    together = f", {jobs} at a time" if jobs > 1 else ""
    return f"{text}{together}: about {plain(duration(rough))}, by the speed of this machine"


def estimated_seconds(configs: Sequence[Config]) -> float:
    """Seconds of start and training of all runs, one after the other; a search that several share counts once.

    From the time that one image takes in the base network on this machine, and how many are trained on. On the server
    every network counts as the whole one, on a device as its budget admits; messages and evaluation do not count, nor
    what devices gain by training together. Runs that would end at once, and say so, take no time; raises the
    FedDACError of the first where none could begin.
    """
    total, searched = 0.0, set[str]()
    problems: list[FedDACError] = []
    for settings in dict.fromkeys(config.data for config in configs):
        sharing = [config for config in configs if config.data == settings]
        try:
            data = load(settings)
        except FedDACError as error:
            problems += [error] * len(sharing)
            continue
        for config in sharing:
            try:
                base = base_network(check_budgets(config, data).model, data)
            except FedDACError as error:
                problems.append(error)
                continue
            total += START_SECONDS + _seconds_of(config, base, len(data.train), search_key(config) in searched)
            searched |= {search_key(config)} - {""}
    if problems and len(problems) == len(configs):
        raise problems[0]
    return total


def _seconds_of(config: Config, base: BaseNetwork, images: int, searched: bool) -> float:
    share = config.data.reference_fraction
    epochs = 0.0 if searched else _epochs_on_reference(config, base)
    reference = share * images * (1 - config.data.validation_fraction) * epochs
    devices = (1 - share) * images * config.federation.fraction
    local = devices * config.federation.rounds * sum(epoch_range(config.federation.local_epochs)) / 2
    images_of_base = reference + local * _share_of_devices(config, base)
    return images_of_base * _seconds_per_image(base, pick_accelerator(config.run.accelerator))


def _share_of_devices(config: Config, base: BaseNetwork) -> float:
    """How long a device trains on an image, as a share of what the base network takes; the mean over the fleet.

    By what it can afford of the base network's MACs and of its time; the least of these where one model serves all.
    """
    full = Architecture.full(base).costs
    budgets = [device.budget for device in virtual_fleet(config.fleet, config.federation.local_training)]
    shares = [min(budget.share(full, "macs"), budget.share(full, "latency")) for budget in budgets]
    one_for_all = contract_of(config.method.method).reads_setting("fedavg-model")
    if one_for_all and config.of(FedAvgSettings).fedavg_model == "smallest":
        shares = [min(shares)]
    return sum(math.pow(share, TIME_EXPONENT) for share in shares) / len(shares)


def _epochs_on_reference(config: Config, base: BaseNetwork) -> float:
    """Passes over the reference set: those of the search's steps down to the smallest budget, or the pretraining."""
    search, contract = config.search, contract_of(config.method.method)
    if not contract.reads_setting("warmup-epochs"):
        return config.method.pretraining_epochs
    full = Architecture.full(base).costs
    budgets = {device.budget for device in virtual_fleet(config.fleet, config.federation.local_training)}
    smallest = min(budget.share(full, resource) for budget in budgets for resource in BOUNDED)
    steps = math.ceil(math.log(smallest) / math.log(1 - search.step_share)) if search.step_share < 1 else 1
    after = len(budgets) * (search.fine_tune_epochs + search.joint_epochs)
    return search.warmup_epochs + steps * search.epochs_per_step + after


@cache
def _seconds_per_image(base: BaseNetwork, accelerator: torch.device) -> float:
    """What a step of training takes here, with the one thread that a run has, divided by its images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = Architecture.full(base).build(0).to(accelerator).train()
        images = torch.zeros(BATCH, *base.input_shape, device=accelerator)
        labels = torch.zeros(BATCH, dtype=torch.long, device=accelerator)
        for _ in range(2):  # the first one is slower
            start = time.perf_counter()
            F.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
            if accelerator.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    return seconds / BATCH
