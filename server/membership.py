"""Who is in which cohort once the cohorts stand: devices that come late, come back, or can afford more or less now."""

from collections.abc import Iterable

from common.config import Config
from common.progress import Progress
from server.assignment import best_fitting
from server.cohorts import FederationState
from server.devices import Device, without_duplicates
from server.handshake import Greeter
from server.methods import ignores_budgets
from server.run_folder import RunFolder


def take_reports(
    greeter: Greeter,
    devices: dict[str, Device],
    state: FederationState,
    config: Config,
    folder: RunFolder,
    progress: Progress,
) -> None:
    """Ask those that have to be asked, and act on what was answered since the last round; no round waits for an answer.

    `devices` are all that reported, by name; strangers are added, and a known device's new report replaces its old one.
    """
    greeter.greet()
    reports = greeter.collect()
    name_of = {device.node_id: device.name for device in devices.values()}
    known = [report for report in reports if report.node_id in name_of]
    strangers, refused = without_duplicates(report for report in reports if report.node_id not in name_of)
    for device in refused:
        progress.note(f"a second device called {device.name} is left out")
        greeter.forget(device.node_id)
    for device in sorted(known, key=lambda device: device.order):
        if device.name != name_of[device.node_id]:
            progress.note(f"{name_of[device.node_id]} now calls itself {device.name}, which is ignored: restart it")
        else:
            devices[device.name] = device
            reassign(device, state, config, folder, progress)
    online = greeter.online() if strangers else set()
    for device in strangers:
        before = devices.get(device.name)
        if before is not None and before.node_id in online:
            # The old node may be dead without Flower having noticed yet, so this one is asked again later.
            greeter.forget(device.node_id)
        else:
            devices[device.name] = device
            state.strikes.pop(device.name, None)  # whoever restarted it may have mended it
            reassign(device, state, config, folder, progress)
    if reports:
        sort_devices(state, devices.values())
        write_budgets(folder, state, devices.values())


def reassign(device: Device, state: FederationState, config: Config, folder: RunFolder, progress: Progress) -> None:
    """`place` the device; a change is told, and recorded as an event `assignment` of the round it first counts in."""
    change = place(device, state, any_budget=ignores_budgets(config))
    if change:
        cohort = state.cohort_of(device.name)
        progress.note(f"{device.name} {change}")
        name = cohort.name if cohort else ""
        folder.append("assignment", round=state.round + 1, device=device.name, cohort=name, reason=change)


def place(device: Device, state: FederationState, *, any_budget: bool = False) -> str:
    """Put a device into the cohort of the largest architecture that its budget admits; out of all, if there is none.

    A device whose budget is the one it was assigned by stays where it is, and with `any_budget` every device in a
    cohort does. No other device moves. Returns what changed, in words to follow the device's name; "" if nothing did.
    """
    current = state.cohort_of(device.name)
    unchanged = state.budgets.get(device.name) == device.budget
    state.budgets[device.name] = device.budget
    if unchanged or (any_budget and current is not None):
        return ""
    cohort = state.cohorts[0] if any_budget else best_fitting(device.budget, state.cohorts)
    if cohort is current and current is not None:
        return ""
    if current is not None:
        current.devices.remove(device.name)
    if cohort is None:
        return f"is left out: its budget {device.budget} admits none of the architectures"
    cohort.devices.append(device.name)
    if current is None:
        return f"joins {cohort.name}"
    return f"moves from {current.name} to {cohort.name}: its budget is now {device.budget}"


def sort_devices(state: FederationState, devices: Iterable[Device]) -> None:
    """Bring every cohort's devices into canonical order; those that are not there now come last, by name."""
    order = {device.name: device.order for device in devices}
    for cohort in state.cohorts:
        cohort.devices.sort(key=lambda name: (name not in order, order.get(name, (0, name))))


def write_budgets(folder: RunFolder, state: FederationState, devices: Iterable[Device]) -> None:
    """Write budgets.json: what each device can afford and which cohort it is in, "" for one that was refused."""
    entries = []
    for device in sorted(devices, key=lambda device: device.order):
        cohort = state.cohort_of(device.name)
        entries.append(device.to_dict(cohort.name if cohort else ""))
    folder.write_budgets(entries)
