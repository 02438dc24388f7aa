"""Certificates and keys: what they are valid for, and who may read them."""

import ssl
import stat
from base64 import b64decode, b64encode
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import ConfigurationError
from feddac.cli.main import run
from feddac.deployment import certificates
from feddac.deployment.certificates import expiry_warning, renew_certificates, write_certificates
from tests.feddac.cli.errors import assert_one_clear_line


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_server_certificate_names_every_host_and_the_loopback(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["server.example", "192.0.2.1"], [])
    names = certificate(tmp_path / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"server.example", "localhost"}
    assert {str(one) for one in names.get_values_for_type(x509.IPAddress)} == {"192.0.2.1", "127.0.0.1"}


def test_the_authority_has_signed_the_server_certificate_and_only_it_may_sign(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], [])
    authority, server = certificate(tmp_path / "ca.crt"), certificate(tmp_path / "server.crt")
    server.verify_directly_issued_by(authority)
    constraints = [one.extensions.get_extension_for_class(x509.BasicConstraints).value for one in (authority, server)]
    assert [one.ca for one in constraints] == [True, False]


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "ca.crt")
    assert context.cert_store_stats()["x509_ca"] == 1


def test_the_lifetime_is_the_one_asked_for(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], [], days=30)
    server = certificate(tmp_path / "server.crt")
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days == 30


def test_every_device_gets_its_own_key_pair(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], ["camera", "gateway"])
    numbers = set()
    for name in ("camera", "gateway"):
        private = serialization.load_ssh_private_key((tmp_path / name).read_bytes(), None)
        public = serialization.load_ssh_public_key((tmp_path / f"{name}.pub").read_bytes())
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert private.public_key() == public
        assert private.curve.name == "secp384r1"
        numbers.add(private.private_numbers().private_value)
    assert len(numbers) == 2


def test_only_the_owner_reads_private_files(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], ["camera"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {name for name, mode in modes.items() if mode & 0o077} <= {"ca.crt", "server.crt", "camera.pub"}
    assert modes["camera"] == modes["server.key"] == modes["ca.key"] == 0o600


@pytest.mark.parametrize(
    "name", ["../camera", "a/b", "", "ca", "server", "Server", "x.pub", "x.PUB", ".hidden", "two words"]
)
def test_a_device_name_is_never_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be called"):
        write_certificates(tmp_path / "keys", [], [name])
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("host", ["http://server", "a_b", "-x", "server:8000", ""])
def test_a_host_is_a_name_or_an_address(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a host name nor an IP address"):
        write_certificates(tmp_path / "keys", [host], [])


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], ["camera"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match="exists"):
        write_certificates(tmp_path, [], ["camera"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("again", ["camera", "Camera"])
def test_a_name_that_is_given_twice_is_refused_before_anything_is_written(
    again: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    assert run(["certificates", str(folder), "--device", "camera", "--device", "gateway", "--device", again]) == 2
    assert_one_clear_line(capsys.readouterr().err, f"--device camera and --device {again} would be one file")
    assert not folder.exists()


def test_neither_is_anything_renewed(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], ["camera"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match="--device shed and --device Shed would be one file"):
        renew_certificates(tmp_path, [], ["shed", "Shed"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_says_who_needs_which_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "keys"
    assert run(["certificates", str(folder), "--host", "server.example", "--device", "camera"]) == 0
    shown = capsys.readouterr().out
    for name in ("ca.crt", "ca.key", "server.crt", "server.key", "camera", "camera.pub"):
        assert (folder / name).is_file()
        assert str(folder / name) in shown


@pytest.mark.parametrize("days", ["0", "-1", "3651", "100000000"])
def test_a_lifetime_that_cannot_be_is_one_line(days: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["certificates", str(tmp_path / "keys"), "--days", days]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "keys").exists()
    with pytest.raises(ConfigurationError, match="1 to 3650 days"):
        write_certificates(tmp_path / "keys", [], [], days=int(days))


def test_a_renewed_certificate_is_of_the_same_authority_and_names(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["server.example", "192.0.2.1"], ["camera"], days=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    first = certificate(tmp_path / "server.crt")
    assert run(["certificates", str(tmp_path), "--renew", "--device", "thermostat"]) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"server.crt", "server.key"}
    assert set(after) - set(before) == {"thermostat", "thermostat.pub"}
    second = certificate(tmp_path / "server.crt")
    second.verify_directly_issued_by(certificate(tmp_path / "ca.crt"))
    names = [one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for one in (first, second)]
    assert names[0] == names[1]
    assert (second.not_valid_after_utc - first.not_valid_after_utc).days == 362
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600


def test_renewal_can_change_the_names(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["old.example"], [])
    renew_certificates(tmp_path, ["new.example"], [])
    names = certificate(tmp_path / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"new.example", "localhost"}


def test_renewal_needs_the_authority_and_its_own_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the certificate .*ca\.crt"):
        renew_certificates(tmp_path, [], [])
    write_certificates(tmp_path / "one", [], [])
    write_certificates(tmp_path / "two", [], [])
    (tmp_path / "one" / "ca.key").write_bytes((tmp_path / "two" / "ca.key").read_bytes())
    with pytest.raises(ConfigurationError, match="is not the key of"):
        renew_certificates(tmp_path / "one", [], [])
    (tmp_path / "one" / "ca.key").unlink()
    with pytest.raises(ConfigurationError, match="put it back"):
        renew_certificates(tmp_path / "one", [], [])
    (tmp_path / "two" / "ca.crt").write_text("nothing")
    with pytest.raises(ConfigurationError, match="PEM form"):
        renew_certificates(tmp_path / "two", [], [])


def test_no_certificate_outlives_its_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "AUTHORITY_DAYS", 10)
    write_certificates(tmp_path, [], [], days=3)
    with pytest.raises(ConfigurationError, match="use --days 9"):
        renew_certificates(tmp_path, [], [], days=30)
    renew_certificates(tmp_path, [], [], days=9)


def test_a_certificate_is_warned_of_a_month_before_its_end(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], [], days=90)
    one = certificate(tmp_path / "server.crt")
    end = one.not_valid_after_utc
    assert expiry_warning("it", one) is None
    soon = expiry_warning("it", one, end - timedelta(days=29))
    assert soon is not None
    assert soon.startswith(f"it expires on {end:%Y-%m-%d}; renew it with")
    over = expiry_warning("it", one, end + timedelta(seconds=1))
    assert over is not None
    assert "it expired on" in over


def test_a_certificate_whose_key_is_damaged_is_one_line(tmp_path: Path) -> None:
    write_certificates(tmp_path, [], [])
    authority = tmp_path / "ca.crt"
    body = b64decode("".join(authority.read_text().splitlines()[1:-1]))
    point = (
        x509.load_pem_x509_certificate(authority.read_bytes())
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    body = body.replace(point, point[:-1] + bytes([point[-1] ^ 1]))  # no point of the curve
    lines = ["-----BEGIN CERTIFICATE-----", b64encode(body).decode(), "-----END CERTIFICATE-----", ""]
    authority.write_text("\n".join(lines))
    with pytest.raises(ConfigurationError, match=r"ca\.crt does not hold a certificate"):
        renew_certificates(tmp_path, [], [])
