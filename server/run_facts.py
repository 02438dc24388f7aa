"""What a reader of a run asks that its rounds do not say: on what it ran, and how good it is class by class."""

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Any

import torch

from common.version import version
from server.methods.method import Method
from server.quality import quality_of
from server.run import Run

PACKAGES = ("torch", "flwr", "ray")


def record_facts(run: Run) -> None:
    """An event `run` when it begins or goes on: versions, host, time, and what it is tested on."""
    reference = run.reference
    run.folder.append("run", **host_facts(), test_images=len(reference.test.images), class_names=reference.class_names)


def host_facts() -> dict[str, Any]:
    """Versions, the machine and the time, ready for JSON."""
    return {
        "versions": {"feddac": version(), "python": platform.python_version(), **_versions()},
        "host": {
            "name": platform.node(),
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def closing_facts(method: Method, run: Run) -> dict[str, Any]:
    """For summary.json: host_facts, `accuracy_before` the first round (as test_accuracy), and the models' quality.

    `class_accuracy` has a list per cohort in the order of `class_names`, None for a class without test images;
    `quality` has the rest of `server.quality` per cohort.
    """
    first = {one["cohort"]: one["test_accuracy"] for one in run.folder.events("evaluation") if one["round"] == 0}
    known = [(len(one.devices), first[one.name]) for one in method.cohorts if one.name in first]
    devices = sum(count for count, _ in known)
    qualities = {}
    run.progress.start("result", len(method.cohorts))
    for cohort in method.cohorts:
        qualities[cohort.name] = quality_of(method.module(cohort), run.reference.test, run.accelerator)
        run.progress.advance("result", 1, f"{cohort.name} tested class by class")
    run.progress.finish("result", f"{len(run.reference.test.images)} test images")
    return {
        **host_facts(),
        "test_images": len(run.reference.test.images),
        "accuracy_before": sum(count * accuracy for count, accuracy in known) / devices if devices else None,
        "class_names": run.reference.class_names,
        "class_accuracy": {name: one.class_accuracy for name, one in qualities.items()},
        "quality": {name: one.summary() for name, one in qualities.items()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            continue
    return found
