"""Throw-away certificates for tests, made by openssl(1): a CA and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority", "Pair"]

_CONFIG = """\
[ca]
default_ca = this
[this]
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose certificate is ``certificate``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(_CONFIG.format(folder=folder))
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "3650", "-subj", "/CN=test authority"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def sign(
        self,
        name: str,
        start: str = "20200101000000Z",
        end: str = "20990101000000Z",
        names: str = "IP:127.0.0.1,DNS:localhost",
    ) -> Pair:
        """A pair for ``names``, valid from ``start`` to ``end`` (YYYYMMDDhhmmssZ)."""
        stem = self._folder / name
        key, request, signed = (stem.with_suffix(end) for end in (".key", ".csr", ".crt"))
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={names}\n")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("ca", "-batch", "-config", str(self._folder / "ca.cnf"), "-notext"),
            *("-cert", str(self.certificate), "-keyfile", str(self._key)),
            *("-startdate", start, "-enddate", end, "-extfile", str(extensions)),
            *("-in", str(request), "-out", str(signed)),
        )
        return Pair(signed, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(("openssl", *arguments), check=True, capture_output=True)
