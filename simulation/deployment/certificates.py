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
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigurationError

LOOPBACK = ("localhost", "127.0.0.1")
LIFETIME_DAYS = 365
_CLOCK_SKEW = timedelta(hours=1)
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("ca", "server", "superexec.secret")
_SECRET_BYTES = 32


def write_certificates(folder: Path, hosts: Sequence[str], devices: Sequence[str], days: int = LIFETIME_DAYS) -> None:
    """Write an authority, a server certificate for `hosts` (names or addresses), and a key pair per device.

    Private files can be read by their owner only. Raises ConfigurationError for a name that cannot be, and if a file
    would be overwritten.
    """
    names = [_alternative_name(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
    for device in devices:
        if not _DEVICE.fullmatch(device) or device in _RESERVED or device.endswith((".pub", ".key", ".crt")):
            raise ConfigurationError(f"a key cannot be called {device!r}: use letters, digits, '.', '_' and '-'")
    files = [
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "superexec.secret",
        *devices,
        *(f"{device}.pub" for device in devices),
    ]
    for name in files:
        if (folder / name).exists():
            raise ConfigurationError(f"{folder / name} exists; choose another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_server(folder, hosts, names, days)
        _write(folder / "superexec.secret", secrets.token_bytes(_SECRET_BYTES), private=True)
        for device in devices:
            _write_key_pair(folder, device)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror or error}") from None


def _write_server(folder: Path, hosts: Sequence[str], names: list[x509.GeneralName], days: int) -> None:
    authority_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FedDAC certificate authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (*hosts, *LOOPBACK)[0][:64])])
    root = (
        _builder(authority, authority, authority_key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA384())
    )
    server = (
        _builder(subject, authority, key, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    _write(folder / "ca.key", _private(authority_key, serialization.PrivateFormat.PKCS8), private=True)
    _write(folder / "ca.crt", root.public_bytes(pem))
    _write(folder / "server.key", _private(key, serialization.PrivateFormat.PKCS8), private=True)
    _write(folder / "server.crt", server.public_bytes(pem))


def _write_key_pair(folder: Path, device: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / device, _private(key, serialization.PrivateFormat.OpenSSH), private=True)
    _write(folder / f"{device}.pub", public + f" {device}\n".encode())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
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
