"""`feddac certificates` and `feddac register`: who may connect to a deployment."""

from pathlib import Path
from typing import Annotated

import typer

CERTIFICATE_EXAMPLES = """
Examples:

feddac certificates keys --host server.example --host 192.0.2.1 --device camera --device gateway
"""

REGISTER_EXAMPLES = """
Examples:

feddac register keys/camera.pub keys/gateway.pub --superlink server.example:8000 --root-certificates keys/ca.crt
"""


def certificates(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files are written.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which devices reach the server; may be repeated.", metavar="NAME"),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Device that gets a key pair; may be repeated.", metavar="NAME")
    ] = None,
    days: Annotated[int, typer.Option(help="Days the certificates are valid.", metavar="N", min=1)] = 365,
) -> None:
    """Make what TLS and authentication need: an authority, the server's certificate, a key pair per device."""
    from simulation.deployment.certificates import write_certificates

    write_certificates(folder, host or [], device or [], days)
    print(f"Every machine needs {folder / 'ca.crt'}")
    print(f"The server needs    {folder / 'server.crt'}, {folder / 'server.key'} and {folder / 'superexec.secret'}")
    for name in device or []:
        print(f"{name} needs {folder / name}; register {folder / name}.pub with the server")
    print(f"Keep {folder / 'ca.key'} offline")


def register(
    keys: Annotated[list[Path], typer.Argument(metavar="KEY.pub...", help="Public keys of devices to let in.")],
    superlink: Annotated[str, typer.Option(help="Address of the SuperLink.", metavar="HOST:PORT")] = "127.0.0.1:8000",
    root_certificates: Annotated[
        Path | None, typer.Option(help="Certificates that prove the SuperLink's identity (ca.crt).", metavar="FILE")
    ] = None,
) -> None:
    """Let devices in by their public keys; a key that is registered already stays so."""
    from simulation.deployment.control import Control

    with Control(superlink, root_certificates) as control:
        for key in keys:
            new = control.register(key, key.stem)
            print(f"{key.stem} is {'registered' if new else 'registered already'}")
