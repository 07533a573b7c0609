"""An authority that issues certificates for tests."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)
USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, *parts: bytes, mode: int = 0o600) -> Path:
    """In one rename, as those do who renew certificates."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(b"".join(parts))
    new.chmod(mode)
    new.replace(path)
    return path


class Authority:
    """Its certificate is in `ca`; what it issues goes into files beside it."""

    def __init__(self, directory: Path, name: str = "site") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._name = directory, _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        own = (
            x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(USAGE, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = _write(directory / f"{name}-ca.pem", own.public_bytes(serialization.Encoding.PEM))
        self._is_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        self.serials: dict[str, int] = {}

    def issue(
        self,
        name: str,
        *,
        client: bool = False,
        hosts: tuple[str, ...] = ("localhost",),
        begins: int = -1,
        ends: int = 30,
        password: bytes | None = None,
    ) -> tuple[Path, Path]:
        """Certificate and key in files of that name, for a server of these names or for a client; days from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        if "localhost" in hosts:
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        issued = (
            x509.CertificateBuilder(self._name, _name(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(self._is_issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.serials[name] = issued.serial_number
        locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
        return (
            _write(self.directory / f"{name}.pem", issued.public_bytes(serialization.Encoding.PEM), mode=0o644),
            _write(self.directory / f"{name}.key", key.private_bytes(*form)),
        )

    def withdraw(self, *names: str, ends: float = 30) -> Path:
        """The list of withdrawn certificates, in the file `crl.pem`."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now - 2 * DAY, now + ends * DAY).add_extension(
            self._is_issuer, critical=False
        )
        for name in names:
            entry = x509.RevokedCertificateBuilder(self.serials[name], now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        made = builder.sign(self._key, hashes.SHA256())
        return _write(self.directory / "crl.pem", made.public_bytes(serialization.Encoding.PEM))
