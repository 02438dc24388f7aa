"""Certificates for TLS and keys by which SuperNodes prove who they are.

ca.crt                     what every machine needs to trust the server
ca.key                     what could sign further certificates; keep it offline, no process reads it
server.crt, server.key     the server's certificate, valid for the given names, and its key
superexec.secret           what the SuperLink and the process that runs server apps know, and nobody else
DEVICE, DEVICE.pub         one SSH key pair per device (ECDSA P-384, as Flower asks for)
"""

import ipaddress
import os
import re
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigurationError
from common.reading import Unreadable, read_limited

LOOPBACK = ("localhost", "127.0.0.1")
LIFETIME_DAYS = 365
MAX_DAYS = 3650
AUTHORITY_DAYS = MAX_DAYS + 2
EXPIRY_WARNING_DAYS = 30
_CLOCK_SKEW = timedelta(hours=1)
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("ca", "server", "superexec.secret")
MAX_KEY_BYTES = 2**16
_SECRET_BYTES = 32
_CONNECT_SECONDS = 10.0


def write_certificates(folder: Path, hosts: Sequence[str], devices: Sequence[str], days: int = LIFETIME_DAYS) -> None:
    """Write an authority, a server certificate for `hosts` (names or addresses), and a key pair per device.

    The server certificate is valid for `days`, the authority for ten years, so that `renew_certificates` can follow.
    Private files can be read by their owner only. Raises ConfigurationError for a name or a number of days that cannot
    be, and if a file would be overwritten.
    """
    _check_days(days)
    names = _alternative_names(hosts)
    _check_new(folder, ["ca.crt", "ca.key", "server.crt", "server.key", "superexec.secret"], devices)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedDAC certificate authority")])
    authority = (
        _builder(subject, subject, key, timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "ca.key", _private(key, serialization.PrivateFormat.PKCS8), private=True)
        _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
        for name, content in _server(authority, key, names, days).items():
            _write(folder / name, content, private=name.endswith(".key"))
        _write(folder / "superexec.secret", secrets.token_bytes(_SECRET_BYTES), private=True)
        for device in devices:
            _write_key_pair(folder, device)


def renew_certificates(folder: Path, hosts: Sequence[str], devices: Sequence[str], days: int = LIFETIME_DAYS) -> None:
    """Replace the server's certificate and key by new ones of the same authority, and add key pairs for `devices`.

    The certificate is for `hosts`, or for the names of the present one if there are none. Devices need nothing new:
    they trust the authority. Raises ConfigurationError if the authority is not there, or ends before `days` are over.
    """
    _check_days(days)
    authority = read_certificate(folder / "ca.crt")
    names = _alternative_names(hosts) if hosts else _names_of(read_certificate(folder / "server.crt"))
    _check_new(folder, [], devices)
    try:
        key = serialization.load_pem_private_key(read_limited(folder / "ca.key", MAX_KEY_BYTES), None)
    except (Unreadable, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"cannot read {folder / 'ca.key'}, which signs certificates ({error}): put it back for as long as it takes"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != authority.public_key():
        raise ConfigurationError(f"{folder / 'ca.key'} is not the key of {folder / 'ca.crt'}")
    left = (authority.not_valid_after_utc - datetime.now(UTC)).days
    if days > left:
        raise ConfigurationError(
            f"the authority {folder / 'ca.crt'} is valid for {max(left, 0)} more days: use --days {max(left, 1)}, "
            "or make a new authority in another folder and give its ca.crt to every machine"
        )
    with _writing(folder):
        for name, content in _server(authority, key, names, days).items():
            (folder / f"{name}.new").unlink(missing_ok=True)
            _write(folder / f"{name}.new", content, private=name.endswith(".key"))
        for name in ("server.key", "server.crt"):
            os.replace(folder / f"{name}.new", folder / name)
        for device in devices:
            _write_key_pair(folder, device)


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file; raises ConfigurationError."""
    try:
        return _parsed(read_limited(path))
    except Unreadable as error:
        raise ConfigurationError(f"cannot read the certificate {path}: {error}") from None
    except ValueError:
        raise ConfigurationError(f"{path} does not hold a certificate in PEM form, or a damaged one") from None


def certificate_of_server(address: str) -> x509.Certificate | None:
    """What the server at "host:port" shows, whether it is valid or not; None if it cannot be reached by TLS."""
    host, _, port = address.rpartition(":")
    try:
        text = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS)
        return _parsed(text.encode())
    except (OSError, ValueError, OverflowError):
        return None


def _parsed(content: bytes) -> x509.Certificate:
    """The certificate, with all that is asked of it later; raises ValueError for what cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificate(content)
        certificate.public_key()
        certificate.not_valid_after_utc  # noqa: B018
        certificate.extensions  # noqa: B018
    except (TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise ValueError(str(error)) from None
    return certificate


def expiry_warning(name: str, certificate: x509.Certificate, now: datetime | None = None) -> str | None:
    """What to say of a certificate that is over, or will be within EXPIRY_WARNING_DAYS; None for any other."""
    end = certificate.not_valid_after_utc
    left = end - (now or datetime.now(UTC))
    if left > timedelta(days=EXPIRY_WARNING_DAYS):
        return None
    when = f"expired on {end:%Y-%m-%d}" if left < timedelta() else f"expires on {end:%Y-%m-%d}"
    return f"{name} {when}; renew it with: feddac certificates FOLDER --renew"


def _server(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], days: int
) -> dict[str, bytes]:
    """The contents of server.crt and server.key."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(names[0].value)[:64])])
    certificate = (
        _builder(subject, authority.subject, key, timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    return {
        "server.key": _private(key, serialization.PrivateFormat.PKCS8),
        "server.crt": certificate.public_bytes(serialization.Encoding.PEM),
    }


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigurationError(f"certificates can be valid for 1 to {MAX_DAYS} days, not {days}")


def _check_new(folder: Path, files: Sequence[str], devices: Sequence[str]) -> None:
    """Raise ConfigurationError for names that no device can have, and for files that are there or would be one."""
    seen: dict[str, str] = {}
    for device in devices:
        folded = device.lower()  # names that differ in their case alone are one file on macOS and Windows
        if not _DEVICE.fullmatch(device) or folded in _RESERVED or folded.endswith((".pub", ".key", ".crt")):
            raise ConfigurationError(f"a key cannot be called {device!r}: use letters, digits, '.', '_' and '-'")
        if folded in seen:
            raise ConfigurationError(
                f"--device {seen[folded]} and --device {device} would be one file: give each device a name of its own"
            )
        seen[folded] = device
    for name in (*files, *devices, *(f"{device}.pub" for device in devices)):
        if (folder / name).exists():
            raise ConfigurationError(f"{folder / name} exists; choose another folder or name, or move it away")


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror or error}") from None


def _write_key_pair(folder: Path, device: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / device, _private(key, serialization.PrivateFormat.OpenSSH), private=True)
    _write(folder / f"{device}.pub", public + f" {device}\n".encode())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative_name(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise ConfigurationError("the server's certificate names no host: give each with --host") from None


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ConfigurationError(f"{host!r} is neither a host name nor an IP address") from None
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes, private: bool = False) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
