"""PEM files of TLS, into an SSLContext, or an error that names the field. Knows no link, and not who is who."""

import ssl
from pathlib import Path

from geotrain.errors import ConfigError

SEE = "See docs/how-to/secure-the-links.md for how these files are made."


def read(field: str, path: str) -> bytes:
    """Returns what a file holds that a field names. Raises ConfigError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{field}: {path} can't be read: {error.strerror}", SEE) from None


def trust(context: ssl.SSLContext, field: str, ca: str) -> None:
    """Takes those for true whom this authority has signed."""
    read(field, ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise ConfigError(f"{field}: {ca} holds no certificate in PEM", SEE) from None


def show(context: ssl.SSLContext, cert_field: str, cert: str, key_field: str, key: str) -> None:
    """Shows the other end this certificate, whose key is this one."""
    read(cert_field, cert)
    read(key_field, key)
    try:
        context.load_cert_chain(cert, key, password="")  # else an encrypted key asks the terminal
    except ssl.SSLError as error:
        raise ConfigError(
            f"{cert_field}, {key_field}: {cert}, {key}: no certificate and its unencrypted key in PEM"
            f" ({error.reason or error})",
            SEE,
        ) from None
