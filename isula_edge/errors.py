"""Every error the engine raises on purpose, and what each one means to a caller.

The classes carry containerd's and gRPC's names::

    EngineError
    ├── InvalidArgument         the request itself is wrong          (client exit status 125)
    ├── NotFound                no such object
    ├── AlreadyExists           the name or id is taken
    ├── FailedPrecondition      the object is in the wrong state
    ├── PermissionDenied
    ├── ResourceExhausted       no space, no memory, a limit reached
    │   └── NoSpace
    ├── Unavailable             a registry or the daemon cannot be reached now
    ├── DeadlineExceeded        a time-out ran out
    ├── Aborted                 somebody cancelled it
    ├── DataLoss                a digest or a checksum does not match
    │   ├── DigestMismatch
    │   └── DamagedRecord
    ├── Unimplemented           kernel or runtime lacks it
    ├── CommandNotFound         the container's command does not exist (exit status 127)
    ├── CommandNotExecutable    it exists and cannot be executed       (exit status 126)
    └── Internal                a bug or an unexpected answer of a program

An error names its object (``kind``, ``ref``), may carry a ``hint`` (what to do)
and says whether trying again can help (``retryable``).  ``code`` is the word that
travels on the wire; :data:`BY_CODE` maps it back.
"""

from __future__ import annotations

__all__ = [
    "BY_CODE",
    "EXIT_ENGINE",
    "EXIT_NOT_EXECUTABLE",
    "EXIT_NOT_FOUND",
    "Aborted",
    "AlreadyExists",
    "CommandNotExecutable",
    "CommandNotFound",
    "DamagedRecord",
    "DataLoss",
    "DeadlineExceeded",
    "DigestMismatch",
    "EngineError",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NoSpace",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Unavailable",
    "Unimplemented",
    "from_wire",
    "to_wire",
]

EXIT_ENGINE = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class EngineError(Exception):
    """Base of every error raised on purpose; ``str()`` is one line for a person."""

    code = "internal"
    grpc = "INTERNAL"
    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        kind: str = "",
        ref: str = "",
        hint: str = "",
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.ref = ref
        self.hint = hint
        self.retryable = retryable


class InvalidArgument(EngineError):
    """The request is wrong whatever the state of the engine."""

    code = "invalid_argument"
    grpc = "INVALID_ARGUMENT"
    exit_status = EXIT_ENGINE


class NotFound(EngineError):
    """The object asked for does not exist."""

    code = "not_found"
    grpc = "NOT_FOUND"


class AlreadyExists(EngineError):
    """The name or id is taken."""

    code = "already_exists"
    grpc = "ALREADY_EXISTS"


class FailedPrecondition(EngineError):
    """The object is in a state that forbids the request."""

    code = "failed_precondition"
    grpc = "FAILED_PRECONDITION"


class PermissionDenied(EngineError):
    """The caller, or the engine itself, may not do this."""

    code = "permission_denied"
    grpc = "PERMISSION_DENIED"


class ResourceExhausted(EngineError):
    """A limit is reached: space, memory, open files."""

    code = "resource_exhausted"
    grpc = "RESOURCE_EXHAUSTED"


class NoSpace(ResourceExhausted):
    """The file system is full."""

    code = "no_space"


class Unavailable(EngineError):
    """A peer (registry, daemon, runtime) cannot be reached or refuses service now."""

    code = "unavailable"
    grpc = "UNAVAILABLE"


class DeadlineExceeded(EngineError):
    """A time-out ran out."""

    code = "deadline_exceeded"
    grpc = "DEADLINE_EXCEEDED"


class Aborted(EngineError):
    """The work was cancelled by its caller or by the engine's end."""

    code = "aborted"
    grpc = "ABORTED"


class DataLoss(EngineError):
    """Stored or received data is not what it should be."""

    code = "data_loss"
    grpc = "DATA_LOSS"


class DigestMismatch(DataLoss):
    """Content does not have the digest that names it."""

    code = "digest_mismatch"


class DamagedRecord(DataLoss):
    """A metadata record fails its checksum or cannot be parsed."""

    code = "damaged_record"


class Unimplemented(EngineError):
    """The kernel, the runtime or this engine lacks what was asked for."""

    code = "unimplemented"
    grpc = "UNIMPLEMENTED"


class CommandNotFound(EngineError):
    """The command of a container or of an exec does not exist there."""

    code = "command_not_found"
    grpc = "NOT_FOUND"
    exit_status = EXIT_NOT_FOUND


class CommandNotExecutable(EngineError):
    """The command exists and cannot be executed."""

    code = "command_not_executable"
    grpc = "FAILED_PRECONDITION"
    exit_status = EXIT_NOT_EXECUTABLE


class Internal(EngineError):
    """A bug of the engine, or an answer of another program that makes no sense."""


def _walk(cls: type[EngineError]) -> list[type[EngineError]]:
    found = [cls]
    for sub in cls.__subclasses__():
        found.extend(_walk(sub))
    return found


BY_CODE: dict[str, type[EngineError]] = {cls.code: cls for cls in reversed(_walk(EngineError))}
BY_CODE["internal"] = Internal


def to_wire(error: EngineError) -> dict[str, object]:
    """The error as a map that :func:`from_wire` turns back into the same class.

    Texts may have parts of names that are not UTF-8: those are escaped.
    """
    return {
        "code": error.code,
        "message": _encodable(error.message),
        "kind": error.kind,
        "ref": _encodable(error.ref),
        "hint": _encodable(error.hint),
        "retryable": error.retryable,
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def from_wire(data: dict[str, object]) -> EngineError:
    """The error that :func:`to_wire` described; an unknown code becomes :class:`Internal`."""
    cls = BY_CODE.get(str(data.get("code")), Internal)
    return cls(
        str(data.get("message", "")),
        kind=str(data.get("kind", "")),
        ref=str(data.get("ref", "")),
        hint=str(data.get("hint", "")),
        retryable=bool(data.get("retryable", False)),
    )
