"""The context of a device whose step is done already, beside those of others."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Context

from client.steps import Here, Step, Work
from common.messages import Task


@dataclass(frozen=True)
class Done:
    """What came of a step: what it made, or the error that it raises."""

    step: str
    outcome: Work | Exception

    def __call__(self, task: Task, here: Here) -> Work:
        """The step, as if it were done now."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Ahead(Context):
    """As the context of any device, with `steps` in place of those of its method."""

    def __init__(self, context: Context, done: Done) -> None:
        super().__init__(
            run_id=context.run_id,
            node_id=context.node_id,
            node_config=context.node_config,
            state=context.state,
            run_config=context.run_config,
        )
        self.steps: Mapping[str, Step] = {done.step: done}
