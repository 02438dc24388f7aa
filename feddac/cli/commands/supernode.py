"""`feddac supernode`: this machine as a device of a deployment."""

import typer

EXAMPLES = """
Examples:
  feddac supernode --insecure --superlink server.example:8080 --node-config 'partition-id=0 device-name="camera"'
"""


def supernode(context: typer.Context) -> None:
    """Connect this machine to a SuperLink as a device. All options of flower-supernode are taken and passed on.

    It is Flower's SuperNode, except that messages are answered by copies of one process that has imported PyTorch, and
    not by a new Python interpreter each (on Linux).
    """
    from feddac.deployment.supernode import become_supernode

    become_supernode(context.args)
