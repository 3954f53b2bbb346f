"""TLS material of one registry: ``<certs.d>/<host[:port]>/`` with CA, client pair, or both."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from isula_edge import errors

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

__all__ = ["load"]


def load(context: ssl.SSLContext, certs_dir: str, host: str) -> None:
    """Adds every ``*.crt`` as CA to ``context`` and its first ``*.cert``/``*.key`` pair.

    A missing directory is fine.  FailedPrecondition names a half pair or a bad file.
    """
    folder = f"{certs_dir}/{host}"
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    pair = ""
    for name in names:
        stem, _, kind = name.rpartition(".")
        path = f"{folder}/{name}"
        if kind == "crt":
            with _naming(path):
                context.load_verify_locations(cafile=path)
        elif kind == "cert":
            if f"{stem}.key" not in names:
                raise _half(path, "lack corresponding key file for tls cert")
            pair = pair or f"{folder}/{stem}"
        elif kind == "key" and f"{stem}.cert" not in names:
            raise _half(path, "lack corresponding cert file for tls key")
    if pair:
        with _naming(f"{pair}.cert"):
            context.load_cert_chain(f"{pair}.cert", f"{pair}.key", _no_password)


def _no_password() -> str:
    """Asked for by OpenSSL, which otherwise asks at the terminal."""
    raise OSError("its key is encrypted, and nobody is there to be asked for the password")


def _half(path: str, text: str) -> errors.FailedPrecondition:
    return errors.FailedPrecondition(f"{text}: {path}", kind="certificate", ref=path)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turns failures to read a certificate into FailedPrecondition with its path."""
    try:
        yield
    except OSError as error:
        raise errors.FailedPrecondition(
            f"cannot use certificate {path}: {error.strerror or error}",
            kind="certificate",
            ref=path,
        ) from error
