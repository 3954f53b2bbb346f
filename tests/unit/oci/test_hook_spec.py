"""Files with hooks: who may own them, and what is in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.oci.options import read_hooks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.oci.conftest import Parse

ENV = "/usr/bin/env"


@pytest.fixture
def hook_file(tmp_path: Path) -> Path:
    return tmp_path / "hooks.json"


def refusal(hook_file: Path, document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    hook_file.write_text(text)
    with pytest.raises(errors.InvalidArgument) as found:
        read_hooks(str(hook_file))
    return str(found.value)


def test_good_hooks_are_read(parse: Parse, hook_file: Path) -> None:
    hooks = {
        "prestart": [{"path": ENV, "args": ["env", "x"], "env": ["A=1"], "timeout": 5}],
        "poststop": [{"path": ENV}],
        "poststart": [],
    }
    hook_file.write_text(json.dumps(hooks))
    assert read_hooks(str(hook_file)) == hooks
    settings = parse(hook_spec=str(hook_file))
    assert (settings.hooks, settings.hook_spec) == (hooks, str(hook_file))


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null"])
def test_a_file_that_holds_no_object_is_refused(hook_file: Path, text: str) -> None:
    assert refusal(hook_file, text).startswith(f"hook-spec {hook_file} cannot be read: ")


def test_bytes_that_are_no_text_are_refused(hook_file: Path) -> None:
    hook_file.write_bytes(b'{"prestart": []}\xff')
    with pytest.raises(errors.InvalidArgument, match="cannot be read"):
        read_hooks(str(hook_file))


def test_a_huge_file_is_refused(hook_file: Path) -> None:
    hook_file.write_text(" " * (10 << 20) + "{}")
    with pytest.raises(errors.InvalidArgument, match="cannot be read"):
        read_hooks(str(hook_file))


def test_an_absent_file_is_named() -> None:
    with pytest.raises(errors.InvalidArgument, match="/no/such/file cannot be read") as found:
        read_hooks("/no/such/file")
    assert found.value.ref == "/no/such/file"


@pytest.mark.parametrize("stage", ["prestart", "createContainer", "poststop"])
def test_a_relative_path_is_refused(hook_file: Path, stage: str) -> None:
    assert refusal(hook_file, {stage: [{"path": "env"}]}) == "hook path env is not absolute"


def test_a_hook_without_a_path_is_refused(hook_file: Path) -> None:
    assert refusal(hook_file, {"prestart": [{"args": ["x"]}]}) == "hook path  is not absolute"


def test_an_absent_program_is_refused(hook_file: Path) -> None:
    found = refusal(hook_file, {"prestart": [{"path": ENV}, {"path": "/no/such/hook"}]})
    assert found == "hook /no/such/hook cannot be used: No such file or directory"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_program_that_others_may_change_is_refused(hook_file: Path, mode: int) -> None:
    program = hook_file.parent / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    found = refusal(hook_file, {"prestart": [{"path": str(program)}]})
    assert found == f"hook {program} must belong to root and be writable by nobody else"


@pytest.mark.root
def test_only_a_program_of_roots_is_taken(hook_file: Path) -> None:
    program = hook_file.parent / "hook"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    hook_file.write_text(json.dumps({"prestart": [{"path": str(program)}]}))
    read_hooks(str(hook_file))
    import os

    os.chown(program, 1000, 0)
    with pytest.raises(errors.InvalidArgument, match="must belong to root"):
        read_hooks(str(hook_file))


def test_a_negative_timeout_is_refused(hook_file: Path) -> None:
    found = refusal(hook_file, {"prestart": [{"path": ENV, "timeout": -1}]})
    assert found == f"hook {ENV} has a negative timeout"


WRONG_TYPES = {
    "hooks are a word": {"prestart": "x"},
    "hooks are an object": {"prestart": {"path": ENV}},
    "a hook is a word": {"prestart": [ENV]},
    "the timeout is a word": {"prestart": [{"path": ENV, "timeout": "5"}]},
    "the timeout is a fraction": {"prestart": [{"path": ENV, "timeout": 0.5}]},
    "the path is a number": {"prestart": [{"path": 5}]},
    "the path has a NUL": {"prestart": [{"path": "/a\0b"}]},
    "the path is no text": '{"prestart": [{"path": "/\\ud800"}]}',
    "args is a word": {"prestart": [{"path": ENV, "args": "x"}]},
    "an argument is a number": {"prestart": [{"path": ENV, "args": ["x", 5]}]},
    "env is an object": {"prestart": [{"path": ENV, "env": {"A": "1"}}]},
    "a variable without value": {"prestart": [{"path": ENV, "env": ["A"]}]},
    "a variable without name": {"prestart": [{"path": ENV, "env": ["=1"]}]},
    "an option of env(1)": {"prestart": [{"path": ENV, "env": ["-S=id"]}]},
    "deep nesting": '{"prestart":' + "[" * 100_000,
}


@pytest.mark.parametrize("document", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_refused(hook_file: Path, document: Any) -> None:
    assert "hook" in refusal(hook_file, document)


def test_what_is_wrong_with_a_variable_is_said(hook_file: Path) -> None:
    found = refusal(hook_file, {"poststop": [{"path": ENV, "env": ["A=1", "B"]}]})
    assert found == "poststop hook: env has 'B', which is no NAME=VALUE"


def test_null_is_no_hook(hook_file: Path) -> None:
    hook_file.write_text('{"prestart": null, "poststop": [{"path": "/usr/bin/env", "env": null}]}')
    assert read_hooks(str(hook_file))["prestart"] is None


@pytest.mark.parametrize("kind", ["preStart", "prestop", "", "hooks"])
def test_a_kind_that_nobody_would_run_is_refused(hook_file: Path, kind: str) -> None:
    found = refusal(hook_file, {kind: [{"path": ENV}]})
    assert f"unknown {kind!r}; there are prestart, createRuntime, " in found


def test_a_key_that_nobody_would_read_is_refused(hook_file: Path) -> None:
    found = refusal(hook_file, {"prestart": [{"path": ENV, "timeOut": 5}]})
    assert found == "prestart hook: unknown 'timeOut'; there are path, args, env, timeout"
