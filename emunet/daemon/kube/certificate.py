"""The lab's own certificate and token: what makes kubectl trust it, and what makes it trust kubectl.

Both are made anew for each lab and are never older than it; their files are the owner's alone, in the
run folder. A leaf that signs itself serves as its own authority: kubectl needs no more.

Rule of this file: nothing secret leaves the run folder but in the kubeconfig that its owner asks for.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

DAYS = 365


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the server has and what its clients need."""

    certificate: bytes
    key: bytes
    token: str

    @classmethod
    def make(cls) -> Credentials:
        """New ones, for 127.0.0.1 and localhost."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "emunet")])
        begin = datetime.now(UTC) - timedelta(hours=1)
        names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost"), x509.DNSName("kubernetes")]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=DAYS))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            secrets.token_urlsafe(32),
        )

    def context(self, folder: Path) -> ssl.SSLContext:
        """How the server speaks TLS. The key passes through a file of the folder, which goes again."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = folder / "kubernetes.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(self.certificate + self.key)
        try:
            context.load_cert_chain(path)
        finally:
            path.unlink()
        return context


def kubeconfig(lab: str, port: int, credentials: Credentials) -> str:
    """The file that points kubectl here. JSON, which is YAML: kubectl and the Python clients read both."""
    name = f"emunet-{lab}"
    authority = base64.b64encode(credentials.certificate).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [
            {
                "name": name,
                "cluster": {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": authority},
            }
        ],
        "users": [{"name": name, "user": {"token": credentials.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
    }
    return json.dumps(config, indent=2) + "\n"
