"""Run folders as a real run writes them, made from formulas instead of training."""

import math
from pathlib import Path
from typing import Any

from common.budget import DeviceBudget
from common.config import Config
from server.budget_entries import BudgetEntry
from server.json_files import write_json
from server.run_folder import RunFolder

INNER = (32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960)
PROFILES = ("microcontroller", "large-microcontroller", "single-board", "phone", "workstation")
FULL_MACS, FULL_PARAMS, FULL_MEMORY = 6_021_120, 2_296_346, 18_432


def write_fake_run(
    path: Path, *, cohorts: int = 5, devices: int = 12, rounds: int = 10, finished: bool = True, trouble: str = ""
) -> RunFolder:
    """A run of `cohorts` cohorts; with `trouble` every other device of round 2 has this text as its name and reason."""
    with RunFolder.create(path) as folder:
        folder.write_config(Config().to_mapping() | {"devices": devices, "rounds": rounds, "stem-stride": 1, "seed": 7})
        names = [f"cohort-{index}" for index in range(cohorts)]
        shares = {name: (index + 1) / cohorts for index, name in enumerate(names)}
        members = {name: [str(d) for d in range(devices) if d % cohorts == i] for i, name in enumerate(names)}
        costs = {name: _costs(share) for name, share in shares.items()}
        folder.write_budgets([_budget(name, device, costs[name]) for name in names for device in members[name]])
        folder.append("stage", stage="handshake", seconds=1.9, peak_rss_bytes=310_000_000)
        _search(folder)
        for name in names:
            _architecture(folder, name, shares[name], costs[name])
        folder.append("stage", stage="search", seconds=48.25, peak_rss_bytes=702_000_000)
        for number in range(rounds + 1):
            for name in names:
                if number:
                    _round(folder, number, name, members[name], costs[name], trouble)
                folder.append("evaluation", round=number, cohort=name, **_quality(shares[name], number))
                if number and number == rounds:
                    for device in members[name]:
                        _own_score(folder, number, device, name)
        if finished:
            folder.append("stage", stage="rounds", seconds=63.5, peak_rss_bytes=811_000_000)
            folder.write_summary(_summary(folder, names, members, shares, costs, rounds))
    return folder


def _costs(share: float) -> dict[str, int]:
    return {
        "macs": round(FULL_MACS * (0.06 + 0.94 * share**2)),
        "params": round(FULL_PARAMS * (0.22 + 0.78 * share)),
        "peak_memory_bytes": round(FULL_MEMORY * (0.15 + 0.85 * share)),
    }


def _budget(cohort: str, device: str, costs: dict[str, int]) -> BudgetEntry:
    number = int(cohort.removeprefix("cohort-"))
    budget = DeviceBudget(
        macs=round(costs["macs"] * 1.004) + 1,
        params=round(costs["params"] * 1.35) if number != 4 else None,
        peak_memory_bytes=round(costs["peak_memory_bytes"] * 1.1),
    )
    return BudgetEntry(device, budget, PROFILES[number % len(PROFILES)], int(device), 90 + int(device), cohort)


def _search(folder: RunFolder) -> None:
    for epoch in range(1, 25):
        share = min(1.0, max(0.08, 1.0 - (epoch - 8) * 0.062))
        folder.append(
            "search",
            epoch=epoch,
            train_loss=2.3 * math.exp(-epoch / 6),
            validation_accuracy=0.975 * (1 - math.exp(-epoch / 3)) - 0.09 * (1 - share) ** 3 - 0.01 * (epoch % 3),
            macs=round(FULL_MACS * share),
            params=round(FULL_PARAMS * (0.22 + 0.78 * share)),
            kept_channels=round(sum(INNER) * share),
        )


def _architecture(folder: RunFolder, cohort: str, share: float, costs: dict[str, int]) -> None:
    base = {f"block{index}.inner": width for index, width in enumerate(INNER)} | {"stem": 32, "classes": 10}
    sizes = dict(base)
    for index, width in enumerate(INNER):
        wave = 1 if share == 1 else share * (0.75 + 0.5 * math.sin(1.7 * index) ** 2)
        sizes[f"block{index}.inner"] = max(8, min(width, round(width * wave)))
    kept = {name: f"0-{size - 1}" for name, size in sizes.items() if size < base[name]}
    write_json(
        folder.architecture_path(cohort),
        {
            "format": "feddac-architecture",
            "version": 1,
            "base": {"model": "mobilenet_v2", "input_shape": [1, 8, 8], "classes": 10, "width": 1.0},
            "kept": kept,
            "sizes": sizes,
            "base_sizes": base,
            "costs": costs,
        },
    )
    folder.append("architecture", cohort=cohort, **costs, validation_accuracy=0.88 + 0.09 * share)


def _quality(share: float, number: int) -> dict[str, float]:
    learned = 1 - math.exp(-number / 3)
    accuracy = 0.80 + 0.1 * share + (0.13 - 0.05 * share) * learned + 0.004 * math.sin(3 * number + 9 * share)
    return {"test_accuracy": accuracy, "loss": 1.6 * (1 - accuracy) + 0.05, "validation_accuracy": accuracy - 0.012}


def _own_score(folder: RunFolder, number: int, device: str, cohort: str) -> None:
    images = 9 + int(device) % 5
    right = images - (3 * int(device)) % 4
    score = {"own_accuracy": right / images, "own_loss": 0.3, "own_images": images}
    folder.append("device_evaluation", round=number, device=device, cohort=cohort, **score)


def _round(
    folder: RunFolder, number: int, cohort: str, members: list[str], costs: dict[str, int], trouble: str
) -> None:
    trained = []
    for position, device in enumerate(members):
        bad = bool(trouble) and number == 2 and position % 2 == 1
        status = ("rejected", "late", "failed")[position % 3] if bad else "trained"
        folder.append(
            "device",
            round=number,
            device=trouble if bad else device,
            cohort=cohort,
            status=status,
            seconds=0.6 + 0.01 * int(device),
            reason=trouble if bad else "",
        )
        if not bad:
            trained.append(device)
    moved = 4 * costs["params"] * len(members)
    folder.append(
        "round",
        round=number,
        cohort=cohort,
        sampled=members,
        trained=trained,
        samples=95 * len(trained),
        train_loss=2.0 * math.exp(-number / 4),
        seconds=0.9 + 1.2e-6 * costs["macs"] + 0.08 * math.sin(2 * number + costs["macs"]),
    )
    folder.append(
        "step",
        round=number,
        cohort=cohort,
        step="train",
        asked=len(members),
        answers=len(trained),
        bytes_down=moved,
        bytes_up=moved + 512,
        device_macs=6 * 95 * costs["macs"] * len(trained),
        seconds=0.9,
    )


def _summary(
    folder: RunFolder,
    names: list[str],
    members: dict[str, list[str]],
    shares: dict[str, float],
    costs: dict[str, dict[str, int]],
    rounds: int,
) -> dict[str, Any]:
    events = folder.events("step")
    quality = {name: _quality(shares[name], rounds) for name in names}
    down, up = (sum(event[key] for event in events) for key in ("bytes_down", "bytes_up"))
    devices = sum(map(len, members.values()))
    return {
        "cohorts": [
            {
                "cohort": name,
                "devices": len(members[name]),
                **costs[name],
                "test_accuracy": quality[name]["test_accuracy"],
                "validation_accuracy": quality[name]["validation_accuracy"],
                "device_macs_per_round": 6 * 95 * costs[name]["macs"],
                "bytes_down": sum(e["bytes_down"] for e in events if e["cohort"] == name),
                "bytes_up": sum(e["bytes_up"] for e in events if e["cohort"] == name),
            }
            for name in names
        ],
        "seconds_total": 113.65,
        "stages": {"handshake": 1.9, "search": 48.25, "rounds": 63.5},
        "bytes_down": down,
        "bytes_up": up,
        "device_macs_per_round": sum(e["device_macs"] for e in events) / sum(e["answers"] for e in events),
        "server_seconds": 51.5,
        "server_bytes": 4 * sum(one["params"] for one in costs.values()),
        "epochs_on_reference": 33,
        "peak_rss_bytes": 811_000_000,
        "rounds": rounds,
        "data": "digits",
        "method": "dac",
        "seed": 7,
        "test_accuracy": sum(quality[name]["test_accuracy"] * len(members[name]) for name in names) / devices,
    }
