"""The step that messages ask of several devices, done for all of them at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from flwr.app import Context, Message

from client.asked import Asked, asked
from client.batched.ahead import Done
from client.batched.jobs import JOBS, Job
from client.batched.training import Member, Outcome, train_members
from client.batched.trial import template_of
from client.deadline import deadline
from client.models import require_fit
from client.steps import dropout_seed, here_of
from common.errors import FederationError

Note: TypeAlias = Callable[[str], None]
_Part: TypeAlias = tuple[Asked, Job]


def same_work(one: Message, other: Message) -> bool:
    """Whether two messages ask for the same step of the same network with the same settings."""
    first, second = (message.content.config_records.get("task") for message in (one, other))
    return first is not None and first == second


def do_ahead(messages: Sequence[tuple[Message, Context]], note: Note) -> list[Done | None]:
    """What came of the step that the messages, which ask for the same work, want of their devices; in their order.

    None for a device that is to do it by itself, in its turn: because its message, images or settings are wrong, of
    which it will then say so, or because the step or the network is none that can be done for several at once. Of that
    `note` is told.
    """
    parts: dict[int, _Part] = {}
    for number, (message, context) in enumerate(messages):
        try:
            todo = asked(message, context)
            require_fit(todo.task.network, todo.data.train)
            make_job = JOBS.get(todo.steps[todo.task.step])
            if make_job is None:
                task = todo.task
                note(f"devices do step {task.step} of {task.method} one by one: the batched engine does not know it")
                break
            parts[number] = todo, make_job(todo.task)
        except Exception:  # whatever it is, the device will raise it again
            continue
    done: list[Done | None] = [None] * len(messages)
    if len(parts) > 1:
        for number, outcome in zip(parts, _outcomes(list(parts.values()), note), strict=False):
            done[number] = Done(parts[number][0].task.step, outcome)
    return done


def _outcomes(parts: Sequence[_Part], note: Note) -> Sequence[Outcome | Exception]:
    """What comes of each device's part; nothing for a network that cannot be stacked."""
    task, accelerator = parts[0][0].task, parts[0][0].accelerator
    template = template_of(task.network)
    if isinstance(template, str):
        note(f"devices train one by one, for their network cannot be stacked: {template}")
        return []
    start = time.perf_counter()
    seconds = sum(todo.task.deadline_seconds for todo, _ in parts)  # as much as one after the other would have
    try:
        with (
            deadline(seconds, f"finish step {task.step} beside {len(parts) - 1} others") as check_deadline,
            torch.random.fork_rng(devices=[accelerator] if accelerator.type == "cuda" else []),
        ):
            members = [_member(todo, job, check_deadline) for todo, job in parts]
            outcomes = train_members(template, task.network.layout, task.network.classes, members)
    except torch.OutOfMemoryError as error:
        reason = f"{len(parts)} devices at once need more memory than there is ({error}); use a smaller --together"
        return [FederationError(reason)] * len(parts)
    except Exception as error:
        return [error] * len(parts)
    share = (time.perf_counter() - start) / len(parts)
    return [replace(one, seconds=share) if not isinstance(one, Exception) else one for one in outcomes]


def _member(todo: Asked, job: Job, check_deadline: Callable[[], None]) -> Member:
    here = here_of(todo.task, todo.data, todo.name, todo.accelerator, check_deadline)
    return Member(job, here, dropout_seed(todo.task, todo.name))
