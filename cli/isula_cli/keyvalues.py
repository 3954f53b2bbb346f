"""``KEY=VALUE`` lists of ``--env`` and ``--label``, from files and flags."""

from __future__ import annotations

__all__ = ["collect", "read_file"]

import posix

from isula_cli.parser import UsageError

_LARGEST = 10 << 20


def read_file(what: str, path: str) -> str:
    """Text of a file of at most 10 MB; raises UsageError naming ``what`` it is."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"Cannot read {what} {path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise UsageError(f"Cannot read {what} {path}: larger than 10 MB")
    return data.decode("utf-8", "surrogateescape")


def collect(kind: str, files: list[str], given: list[str]) -> list[str]:
    """Lines of the files, then what was given, as ``KEY=VALUE``.

    ``kind`` is ``env``, where a name alone takes its value from the client's environment
    and is dropped when it has none there, or ``label``, where the value is then empty.
    """
    words: list[str] = []
    for path in files:
        lines = read_file(kind + " file", path).split("\n")
        words += [line for line in (text.removesuffix("\r") for text in lines) if line]
    found = []
    for word in words + given:
        key, equals, _ = word.partition("=")
        if not key:
            raise UsageError(f"Invalid {kind} {word!r}: the name is empty")
        if equals:
            found.append(word)
        elif kind == "label":
            found.append(key + "=")
        else:
            value = posix.environ.get(key.encode("utf-8", "surrogateescape"))
            if value is not None:
                found.append(f"{key}={value.decode('utf-8', 'surrogateescape')}")
    return found
