"""Certificates for the way to the model server, from files that are rotated while we run."""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from serving.settings import Settings

Held = tuple[bytes, bytes | None, bytes | None]
"""What the files hold: authority, certificate, key."""


@dataclass(frozen=True)
class Certificates:
    """The files of one side of (mutual) TLS, in PEM.

    Attributes:
        authority: what the model server's certificate is checked against.
        certificate, key: our own, for mutual TLS; both or neither.
    """

    authority: Path
    certificate: Path | None
    key: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The certificates that the settings name; None without TLS."""
        if not settings.model_server_ca:
            return None
        own = (settings.model_server_certificate, settings.model_server_key)
        certificate, key = (Path(path) if path else None for path in own)
        return cls(Path(settings.model_server_ca), certificate, key)

    def read(self) -> Held:
        """What the files hold now.

        Raises:
            OSError: one of them cannot be read, or is not in PEM.
        """
        own = (self.certificate, self.key)
        certificate, key = (_read(path) if path else None for path in own)
        return _read(self.authority), certificate, key


def _read(path: Path) -> bytes:
    held = path.read_bytes()
    if b"-----BEGIN " not in held:
        raise OSError(errno.EINVAL, "it is not in PEM", str(path))
    return held


def credentials(held: Held) -> grpc.ChannelCredentials:
    """Channel credentials of what `Certificates.read` gave."""
    authority, certificate, key = held
    return grpc.ssl_channel_credentials(authority, private_key=key, certificate_chain=certificate)
