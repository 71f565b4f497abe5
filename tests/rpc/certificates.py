"""Certificates for tests, made by openssl as docs/how-to/secure-the-links.md has it."""

import subprocess
from pathlib import Path

from geotrain.rpc.tls import Identity, TlsConfig

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")


class Authority:
    """Signs certificates; everything is kept below its folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.ca = folder / "ca.pem"
        _openssl(
            *("req", "-x509", *CURVE, "-days", "30", "-subj", "/CN=geotrain test"),
            *("-keyout", folder / "ca.key", "-out", self.ca),
        )

    def issue(self, *names: str, days: int = 30) -> TlsConfig:
        """The files of a new certificate with these DNS names; days below 0: it has expired."""
        folder = self.folder / f"{'+'.join(names)}{days}"
        folder.mkdir()
        alternatives = f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"
        _openssl(
            *("req", *CURVE, "-subj", "/CN=geotrain", "-addext", alternatives),
            *("-keyout", folder / "key.pem", "-out", folder / "request.pem"),
        )
        _openssl(
            *("x509", "-req", "-in", folder / "request.pem", "-copy_extensions", "copy", "-days", str(days)),
            *("-CA", self.ca, "-CAkey", folder.parent / "ca.key", "-CAcreateserial", "-out", folder / "cert.pem"),
        )
        (folder / "ca.pem").write_bytes(self.ca.read_bytes())
        return TlsConfig.in_folder(str(folder))


def identity(config: TlsConfig) -> Identity:
    """What a program shows that does not look at its own files first."""
    return Identity(*(Path(path).read_bytes() for path in (config.ca, config.cert, config.key)))


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
