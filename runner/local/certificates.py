"""The certificate of the embedded S3 server: clients know it by that, and its parts let in only each other.

It is made at each start, and the key of its authority is never stored, so that nobody can make another one.
"""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from components.shared.core.files import new_file

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "server.crt", "server.key"
VALID = timedelta(days=3650)  # for as long as a server may run
SLACK = timedelta(days=1)  # for a clock that is set back
GRPC_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT", "MQ")
HTTPS_PARTS = ("MASTER", "VOLUME", "FILER", "ADMIN", "CLIENT")


def write_certificates(folder: Path, address: str) -> None:
    """Write a new certificate for an IP address, its key and its authority to a folder that only its owner can read."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    is_authority = x509.BasicConstraints(ca=True, path_length=0)
    authority = _builder("torch2kubeflow", authority_key).add_extension(is_authority, critical=True)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    certificate = _builder(address, key).add_extension(alternative, critical=False)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in (
        (AUTHORITY, authority.sign(authority_key, SHA256()).public_bytes(Encoding.PEM)),
        (CERTIFICATE, certificate.sign(authority_key, SHA256()).public_bytes(Encoding.PEM)),
        (KEY, private),
    ):
        with new_file(folder / name) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)


def tls_variables(folder: Path) -> dict[str, str]:
    """Return the variables with which SeaweedFS's parts prove to each other who they are, and let in nobody else."""
    own = {"CERT": str(folder / CERTIFICATE), "KEY": str(folder / KEY)}
    grpc = {f"WEED_GRPC_{part}_{kind}": path for part in GRPC_PARTS for kind, path in own.items()}
    own["CA"] = str(folder / AUTHORITY)
    https = {f"WEED_HTTPS_{part}_{kind}": path for part in HTTPS_PARTS for kind, path in own.items()}
    return {"WEED_GRPC_CA": own["CA"], "WEED_HTTPS_CLIENT_ENABLED": "true", **grpc, **https}


def _builder(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    issuer, subject = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("torch2kubeflow", name))
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - SLACK).not_valid_after(now + VALID)
