"""Errors: every class keeps its kind on the wire, its gRPC code and its exit status."""

from __future__ import annotations

import pytest

from isula_edge import errors, wire

EXIT = {
    errors.InvalidArgument: 125,
    errors.CommandNotExecutable: 126,
    errors.CommandNotFound: 127,
}

GRPC = {
    errors.Aborted: "ABORTED",
    errors.AlreadyExists: "ALREADY_EXISTS",
    errors.CommandNotExecutable: "FAILED_PRECONDITION",
    errors.CommandNotFound: "NOT_FOUND",
    errors.DamagedRecord: "DATA_LOSS",
    errors.DataLoss: "DATA_LOSS",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.DigestMismatch: "DATA_LOSS",
    errors.EngineError: "INTERNAL",
    errors.FailedPrecondition: "FAILED_PRECONDITION",
    errors.Internal: "INTERNAL",
    errors.InvalidArgument: "INVALID_ARGUMENT",
    errors.NoSpace: "RESOURCE_EXHAUSTED",
    errors.NotFound: "NOT_FOUND",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.ResourceExhausted: "RESOURCE_EXHAUSTED",
    errors.Unavailable: "UNAVAILABLE",
    errors.Unimplemented: "UNIMPLEMENTED",
}

GRPC_CODES = """
    OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS
    PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE
    UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED
""".split()


def every_class(top: type[errors.EngineError]) -> set[type[errors.EngineError]]:
    found = {top}
    for sub in top.__subclasses__():
        # other modules, and other tests, may have classes of their own
        if sub.__module__ == errors.__name__:
            found |= every_class(sub)
    return found


CLASSES = sorted(every_class(errors.EngineError), key=lambda cls: cls.__name__)
SENT = [cls for cls in CLASSES if cls is not errors.EngineError]


def test_the_table_of_codes_has_every_class() -> None:
    assert set(CLASSES) == set(GRPC)
    assert {cls for cls in errors.BY_CODE.values() if cls in GRPC} == set(SENT)


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
def test_no_two_classes_share_a_code(cls: type[errors.EngineError]) -> None:
    assert errors.BY_CODE[cls.code] is cls
    assert [other for other in SENT if other.code == cls.code] == [cls]


@pytest.mark.parametrize("cls", SENT, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("retryable", [True, False])
def test_an_error_that_crosses_the_wire_is_the_same(
    cls: type[errors.EngineError], retryable: bool
) -> None:
    sent = cls("what happened", kind="image", ref="a:1", hint="do this", retryable=retryable)
    got = errors.from_wire(wire.decode(wire.encode(errors.to_wire(sent))))
    assert type(got) is cls
    assert str(got) == "what happened"
    assert (got.message, got.kind, got.ref, got.hint, got.retryable) == (
        "what happened",
        "image",
        "a:1",
        "do this",
        retryable,
    )


def test_the_base_class_arrives_as_internal() -> None:
    assert type(errors.from_wire(errors.to_wire(errors.EngineError("x")))) is errors.Internal


@pytest.mark.parametrize("data", [{}, {"code": "of the future"}, {"code": 5}, {"code": None}])
def test_an_unknown_code_is_internal(data: dict[str, object]) -> None:
    got = errors.from_wire({**data, "message": "text"})
    assert type(got) is errors.Internal
    assert got.message == "text"


def test_what_is_left_out_is_empty() -> None:
    got = errors.from_wire({"code": "not_found"})
    assert type(got) is errors.NotFound
    assert (got.message, got.kind, got.ref, got.hint, got.retryable) == ("", "", "", "", False)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_grpc_code(cls: type[errors.EngineError]) -> None:
    assert cls.grpc == GRPC[cls]
    assert cls.grpc in GRPC_CODES


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_exit_status(cls: type[errors.EngineError]) -> None:
    assert cls("x").exit_status == EXIT.get(cls, 1)


@pytest.mark.parametrize("name", errors.__all__)
def test_everything_that_is_exported_exists(name: str) -> None:
    assert hasattr(errors, name)


def test_every_class_is_exported() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_is_in_the_drawing(cls: type[errors.EngineError]) -> None:
    assert errors.__doc__ is not None
    assert cls.__name__ in errors.__doc__.split()


def test_names_that_are_no_text_travel_escaped() -> None:
    error = errors.NotFound("no caf\udce9", ref="caf\udce9", hint="see caf\udce9")
    got = errors.from_wire(wire.decode(wire.encode(errors.to_wire(error))))
    escaped = "caf\\udce9"
    assert (got.message, got.ref, got.hint) == (f"no {escaped}", escaped, f"see {escaped}")
