"""`feddac certificates`, `register` and `unregister`: who may connect to a deployment."""

from pathlib import Path
from typing import Annotated

import typer

from feddac.cli.failures import say

CERTIFICATE_EXAMPLES = """
Examples:
  feddac certificates keys --host server.example --host 192.0.2.1 --device camera --device gateway
  feddac certificates keys --renew
  feddac certificates keys --renew --device thermostat
"""

REGISTER_EXAMPLES = """
Examples:
  feddac register keys/camera.pub keys/gateway.pub --root-certificates keys/ca.crt
"""

UNREGISTER_EXAMPLES = """
Examples:
  feddac unregister keys/camera.pub --root-certificates keys/ca.crt
"""

SuperLink = Annotated[str, typer.Option(help="Address of the SuperLink.", metavar="HOST:PORT")]
RootCertificates = Annotated[
    Path | None, typer.Option(help="Certificates that prove the SuperLink's identity (ca.crt).", metavar="FILE")
]


def certificates(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files are written.")],
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address by which devices reach the server; may be repeated.", metavar="NAME"),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Device that gets a key pair; may be repeated.", metavar="NAME")
    ] = None,
    days: Annotated[
        int, typer.Option(help="Days the server's certificate is valid.", metavar="N", min=1, max=3650)
    ] = 365,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew",
            help="Make a new server certificate from the authority in FOLDER, for the same names if no --host is "
            "given; with --device also keys for more devices.",
        ),
    ] = False,
) -> None:
    """Make what TLS and authentication need: an authority, the server's certificate, a key pair per device."""
    from feddac.deployment.certificates import renew_certificates, write_certificates

    if renew:
        renew_certificates(folder, host or [], device or [], days)
        print(f"Restart SuperLink and proxy with {folder / 'server.crt'} and {folder / 'server.key'}, which are new")
    else:
        write_certificates(folder, host or [], device or [], days)
    print(f"Every machine needs {folder / 'ca.crt'}")
    print(f"The server needs    {folder / 'server.crt'}, {folder / 'server.key'} and {folder / 'superexec.secret'}")
    for name in device or []:
        print(f"{name} needs {folder / name}; register {folder / name}.pub with the server")
    print(f"Keep {folder / 'ca.key'} offline")


def register(
    keys: Annotated[list[Path], typer.Argument(metavar="KEY.pub...", help="Public keys of devices to let in.")],
    superlink: SuperLink = "127.0.0.1:8000",
    root_certificates: RootCertificates = None,
) -> None:
    """Let devices in by their public keys; a key that is registered already stays so."""
    from feddac.deployment.control import Control

    with Control(superlink, root_certificates) as control:
        for line in control.expiring():
            say(f"warning: {line}")
        for key in keys:
            new = control.register(key, key.stem)
            print(f"{key.stem} is {'registered' if new else 'registered already'}")


def unregister(
    keys: Annotated[list[Path], typer.Argument(metavar="KEY.pub...", help="Public keys of devices to shut out.")],
    superlink: SuperLink = "127.0.0.1:8000",
    root_certificates: RootCertificates = None,
) -> None:
    """Shut devices out by their public keys, at once and for good; a device that is to return needs a new key."""
    from feddac.deployment.control import Control

    with Control(superlink, root_certificates) as control:
        for key in keys:
            known = control.unregister(key)
            print(f"{key.stem} is {'unregistered' if known else 'not registered'}")
