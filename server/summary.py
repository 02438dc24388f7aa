"""What summary.json says of a run: accuracies, costs and what became of every device."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from common.config import Config
from common.methods.evaluation import EVALUATE
from common.process import peak_rss_bytes
from server.cohorts import Cohort, FederationState, Spent
from server.evaluation import mean_over_devices
from server.methods.method import Method
from server.report.own_scores import OWN_EVENT, OwnScore, mean_own, on_devices, own_scores
from server.report.progress import Point, milestones, progress_of
from server.run_folder import RunFolder


def summarise(method: Method, state: FederationState, config: Config, folder: RunFolder) -> dict[str, Any]:
    """The result of a run, ready for summary.json; accuracies are those of the last evaluation.

    `test_accuracy` is the mean over devices of the test accuracy of their cohort's model, `own_accuracy` that of what
    they scored on images of their own (None where none holds any out), `own_devices` of them on `own_images` in all;
    `devices` has both of each device, there of the network that runs on it. `outcomes` counts what became of devices
    over all rounds; one that was refused before the first counts as rejected once. `over_budget` is the number of a
    cohort's devices that could not hold its network, which only fedavg's oracle has. What the run cost is said in the
    same terms for every method (see `_costs`); `traffic` has what each step cost, `milestones` what had been spent when
    an accuracy was first reached.
    """
    scores = own_scores(folder.events(OWN_EVENT), state.round)
    profiles = {entry.name: entry.profile for entry in folder.read_budgets()}
    small = on_devices(folder.events("round"), state.round)
    return {
        "method": method.contract.name,
        "data": config.data.data,
        "seed": config.run.seed,
        "rounds": state.round,
        "stopped_early": state.stopped_early,
        "test_accuracy": mean_over_devices(method.cohorts, "accuracy"),
        **_own_figures(scores),
        "outcomes": _outcomes(folder),
        "cohorts": [_cohort_summary(cohort, state, scores) for cohort in method.cohorts],
        "devices": _device_results(method.cohorts, profiles, scores, small),
        **_costs(method, state),
        "milestones": milestones(_progress(method, folder)),
        "traffic": {step: asdict(_spent(method.cohorts, step)) for step in _steps(method.cohorts)},
        "seconds_total": sum(state.stage_seconds.values()),
        "stages": dict(state.stage_seconds),
        "peak_rss_bytes": max(state.peak_rss_bytes, peak_rss_bytes()),
    }


def _costs(method: Method, state: FederationState) -> dict[str, Any]:
    """What the run has cost so far.

    `device_macs_per_round` is the mean over devices and rounds of the multiply-accumulates of a device whose answer
    counted, all passes over all its images; bytes are all messages', `simulated_seconds` how long the rounds would have
    taken on real devices, `server_seconds` what the method itself took on the server, search or pretraining included
    and waiting left out, `server_bytes` the most it held between rounds.
    """
    spent = [_spent(method.cohorts, step) for step in _steps(method.cohorts)]
    return {
        "device_macs_per_round": _macs_per_answer(method.cohorts),
        "bytes_down": sum(one.bytes_down for one in spent),
        "bytes_up": sum(one.bytes_up for one in spent),
        "simulated_seconds": state.simulated_seconds,
        "server_seconds": state.method_seconds,
        "server_bytes": state.method_bytes,
        "epochs_on_reference": method.epochs_on_reference(state.round),
    }


def _progress(method: Method, folder: RunFolder) -> tuple[Point, ...]:
    devices = {cohort.name: len(cohort.devices) for cohort in method.cohorts if cohort.devices}
    return progress_of(folder.events("step"), folder.events("evaluation"), devices)


def _steps(cohorts: Sequence[Cohort]) -> list[str]:
    return sorted({step for cohort in cohorts for step in cohort.spent})


def _spent(cohorts: Sequence[Cohort], step: str) -> Spent:
    """What one step cost all cohorts."""
    found = [cohort.spent[step] for cohort in cohorts if step in cohort.spent]
    return Spent(*(sum(getattr(one, field.name) for one in found) for field in fields(Spent)))


def _macs_per_answer(cohorts: Sequence[Cohort]) -> float:
    """Mean multiply-accumulates of a device in a round, over what was asked of devices beside evaluation."""
    spent = [one for cohort in cohorts for step, one in cohort.spent.items() if step != EVALUATE]
    answers = sum(one.answers for one in spent)
    return sum(one.device_macs for one in spent) / answers if answers else 0.0


def _outcomes(folder: RunFolder) -> dict[str, int]:
    counts = Counter(event["status"] for event in folder.events("device"))
    return {status: counts[status] for status in ("trained", "late", "failed", "rejected")}


def _own_figures(scores: Mapping[str, OwnScore]) -> dict[str, Any]:
    return {
        "own_accuracy": mean_own(scores.values()) if scores else None,
        "own_devices": len(scores),
        "own_images": sum(score.images for score in scores.values()),
    }


def _device_results(
    cohorts: Sequence[Cohort],
    profiles: Mapping[str, str],
    scores: Mapping[str, OwnScore],
    on_device: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """By device: who it is, and its network's accuracy on the test images and on so many of its own, if there are."""
    found = {}
    for cohort in cohorts:
        whole = cohort.evaluation.accuracy if cohort.evaluation else None
        for name in cohort.devices:
            own = scores.get(name)
            found[name] = {
                "cohort": cohort.name,
                "profile": profiles.get(name, ""),
                "test_accuracy": on_device.get(cohort.name, whole),
                "own_accuracy": own.accuracy if own else None,
                "own_images": own.images if own else 0,
            }
    return found


def _cohort_summary(cohort: Cohort, state: FederationState, scores: Mapping[str, OwnScore]) -> dict[str, Any]:
    costs = cohort.network.costs
    evaluation = cohort.evaluation
    spent = cohort.spent.values()
    return {
        "cohort": cohort.name,
        "devices": len(cohort.devices),
        "over_budget": sum(not state.budgets[name].admits(costs) for name in cohort.devices),
        "macs": costs.macs,
        "params": costs.params,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "test_accuracy": evaluation.accuracy if evaluation else None,
        "validation_accuracy": evaluation.validation_accuracy if evaluation else None,
        **_own_figures({name: scores[name] for name in cohort.devices if name in scores}),
        "device_macs_per_round": _macs_per_answer([cohort]),
        "bytes_down": sum(one.bytes_down for one in spent),
        "bytes_up": sum(one.bytes_up for one in spent),
    }
