"""How a command ended, in the words of the Kubernetes API."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Status", "failed", "finished"]


@dataclass(frozen=True, slots=True)
class Status:
    """The end of an exec or attach; ``message`` is empty when all went well."""

    message: str = ""
    exit_code: int | None = None
    """The command's own, if it is not 0."""

    def json(self) -> bytes:
        """A metav1.Status, as v4 and v5 have it."""
        document: dict[str, object] = {"metadata": {}, "status": "Success"}
        if self.message:
            document |= {"status": "Failure", "message": self.message}
        if self.exit_code is not None:
            cause = {"reason": "ExitCode", "message": str(self.exit_code)}
            document |= {"reason": "NonZeroExitCode", "details": {"causes": [cause]}}
        elif self.message:
            cause = {"message": self.message}
            document |= {"reason": "InternalError", "details": {"causes": [cause]}, "code": 500}
        return json.dumps(document, separators=(",", ":")).encode()

    def text(self) -> bytes:
        """What v1 to v3 have: nothing when all went well."""
        return self.message.encode("utf-8", "backslashreplace")


def finished(code: int) -> Status:
    """A command that ended with ``code``."""
    if not code:
        return Status()
    shown = code if 0 < code < 256 else 255
    return Status(f"command terminated with non-zero exit code: {shown}", shown)


def failed(what: str, error: str) -> Status:
    """Something that could not be done."""
    return Status(f"{what}: {error}")
