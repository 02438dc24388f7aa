"""Who is in which cohort once the cohorts stand: devices that come late, come back, or can afford more or less now."""

from collections.abc import Iterable, Mapping

from server.cohorts import Cohort, FederationState, cohort_of
from server.devices import Device, without_duplicates
from server.handshake import Greeter
from server.methods.method import Method
from server.run import Run
from server.run_folder import RunFolder


def take_reports(
    greeter: Greeter, devices: dict[str, Device], method: Method, state: FederationState, run: Run
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
        run.progress.note(f"a second device called {device.name} is left out")
        greeter.forget(device.node_id)
    for device in sorted(known, key=lambda device: device.order):
        if device.name != name_of[device.node_id]:
            run.progress.note(f"{name_of[device.node_id]} now calls itself {device.name}, which is ignored: restart it")
        else:
            devices[device.name] = device
            reassign(device, method, state, run)
    online = greeter.online() if strangers else set()
    for device in strangers:
        before = devices.get(device.name)
        if before is not None and before.node_id in online:
            # The old node may be dead without Flower having noticed yet, so this one is asked again later.
            greeter.forget(device.node_id)
        else:
            devices[device.name] = device
            state.strikes.pop(device.name, None)  # whoever restarted it may have mended it
            reassign(device, method, state, run)
    if reports:
        sort_devices(method, devices.values())
        write_budgets(run.folder, method, devices.values())


def reassign(device: Device, method: Method, state: FederationState, run: Run) -> None:
    """`place` the device; a change is told, and recorded as an event `assignment` of the round it first counts in."""
    change = place(device, method, state)
    if change:
        cohort = cohort_of(method.cohorts, device.name)
        run.progress.note(f"{device.name} {change}")
        name = cohort.name if cohort else ""
        run.folder.append("assignment", round=state.round + 1, device=device.name, cohort=name, reason=change)


def place(device: Device, method: Method, state: FederationState) -> str:
    """Put a device into the cohort that the method says; out of all, if there is none.

    A device whose budget is the one it was assigned by stays where it is, and no other device moves. Returns what
    changed, in words to follow the device's name; "" if nothing did.
    """
    current = cohort_of(method.cohorts, device.name)
    unchanged = state.budgets.get(device.name) == device.budget
    state.budgets[device.name] = device.budget
    if unchanged:
        return ""
    cohort = method.place(device)
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


def may_take_part(cohort: Cohort, devices: Mapping[str, Device], state: FederationState) -> list[str]:
    """The names of a cohort's devices that have reported and are not left out, whether they are online or not."""
    return [name for name in cohort.devices if name in devices and not state.is_left_out(name)]


def sort_devices(method: Method, devices: Iterable[Device]) -> None:
    """Bring every cohort's devices into canonical order; those that are not there now come last, by name."""
    order = {device.name: device.order for device in devices}
    for cohort in method.cohorts:
        cohort.devices.sort(key=lambda name: (name not in order, order.get(name, (0, name))))


def write_budgets(folder: RunFolder, method: Method, devices: Iterable[Device]) -> None:
    """Write budgets.json: what each device can afford and which cohort it is in, "" for one that was refused.

    `devices` are those that reported to this process; of one that is in a cohort and has not, since the server was
    restarted without it, the file keeps what it said before.
    """
    known = {device.name: device for device in devices}
    awaited = {name for cohort in method.cohorts for name in cohort.devices} - known.keys()
    if awaited:
        known |= {entry.name: Device.of(entry) for entry in folder.read_budgets() if entry.name in awaited}
    entries = []
    for device in sorted(known.values(), key=lambda device: device.order):
        cohort = cohort_of(method.cohorts, device.name)
        entries.append(device.entry(cohort.name, cohort.network.costs) if cohort else device.entry())
    folder.write_budgets(entries)
