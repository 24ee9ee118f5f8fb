"""A TLS key for one job: only processes that hold it can connect to its Flink."""

import dataclasses
import datetime
import ipaddress
import os
import secrets
import ssl
from pathlib import Path

FOLDER = "private"
"""Name of the folder, below a job's folder, of the key and of the configuration with the key's password."""
DAYS = 60
"""How long a key is valid: longer than any job."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A private key with a self-signed certificate, in files of mode 600.

    Attributes:
        store: PKCS12 file, which is both Java's keystore and truststore: both ends must hold the same key.
        pem: the same for Python and curl.
        password: of the PKCS12 file.
    """

    store: Path
    pem: Path
    password: str

    @classmethod
    def make(cls, folder: Path) -> "Key":
        """Make a key.

        Args:
            folder: of mode 700.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import pkcs12

        private = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "beam-zoo job")])
        # For browsers and curl, on the JobManager's host or through a tunnel.
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))  # clocks of nodes differ
            .not_valid_after(now + datetime.timedelta(days=DAYS))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(private, hashes.SHA256())
        )
        key = cls(folder / "job.p12", folder / "job.pem", secrets.token_hex(32))
        cipher = serialization.BestAvailableEncryption(key.password.encode())
        store = pkcs12.serialize_key_and_certificates(b"job", private, certificate, None, cipher)
        _write(key.store, store)
        pem = serialization.Encoding.PEM
        plain = private.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(pem)
        _write(key.pem, plain)
        return key

    def settings(self) -> dict[str, object]:
        """Flink's settings for mutual TLS between its processes, and of its REST interface."""
        settings: dict[str, object] = {
            "security.ssl.protocol": "TLSv1.3",
            "security.ssl.algorithms": "TLS_AES_256_GCM_SHA384,TLS_AES_128_GCM_SHA256",
            "security.ssl.rest.authentication-enabled": True,
        }
        for side in ("internal", "rest"):
            begin = f"security.ssl.{side}"
            settings[f"{begin}.enabled"] = True
            for store in ("keystore", "truststore"):
                settings[f"{begin}.{store}"] = str(self.store)
                settings[f"{begin}.{store}-password"] = self.password
            settings[f"{begin}.key-password"] = self.password
        return settings

    def context(self) -> ssl.SSLContext:
        """A TLS context for clients of the REST interface; it presents and accepts this certificate only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the certificate is not that of a host
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.pem)
        context.load_cert_chain(self.pem)
        return context


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
