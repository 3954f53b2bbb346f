"""Wrong seccomp profiles are refused by name, on every runtime, before anything is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig import Engine

pytestmark = [pytest.mark.root, pytest.mark.lxc]


def rule(**changes: Any) -> dict[str, Any]:
    """A profile with one entry."""
    entry = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{**entry, **changes}]}


BAD: list[tuple[object, str]] = [
    ("{", "it is no JSON"),
    (" ", "it is no JSON"),
    ("[]", "it has no defaultAction"),
    ('"SCMP_ACT_ALLOW"', "it has no defaultAction"),
    ("{}", "it has no defaultAction"),
    ({"defaultAction": 5}, "it has no defaultAction"),
    ({"defaultAction": "SCMP_ACT_PANIC"}, "unknown 'SCMP_ACT_PANIC'; there are SCMP_ACT_KILL"),
    ({"defaultAction": "allow"}, "unknown 'allow'"),
    (rule(action="SCMP_ACT_PANIC"), "mkdir: unknown 'SCMP_ACT_PANIC'"),
    (rule(action=None), "mkdir has no action"),
    (rule(names=[]), "an entry of syscalls has no names"),
    (rule(names="mkdir"), "an entry of syscalls has no names"),
    (rule(names=["mkdir allow\nread"]), "is no name of a system call"),
    (rule(errnoRet=-1), "mkdir: errnoRet must be a number from 0 to 4095"),
    (rule(errnoRet="28"), "mkdir: errnoRet must be a number from 0 to 4095"),
    (rule(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]), "an unknown operator"),
    (rule(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]), "args.index must be a number"),
    (rule(args={"index": 0}), "args must be a list"),
    ({**rule(), "syscalls": {}}, "syscalls must be a list"),
    ({**rule(), "architectures": ["SCMP_ARCH_Z80"]}, "unknown 'SCMP_ARCH_Z80'; there are"),
    ({**rule(), "architectures": "SCMP_ARCH_X86_64"}, "architectures must be a list"),
    ({**rule(), "flags": ["SECCOMP_FILTER_FLAG_PLEASE"]}, "unknown 'SECCOMP_FILTER_FLAG_PLEASE'"),
    ({**rule(), "defaultErrnoRet": 5000}, "defaultErrnoRet must be a number"),
    ({**rule(), "listenerPath": 5}, "listenerPath must be a string"),
]


@pytest.mark.parametrize(("document", "words"), BAD)
def test_a_bad_profile_makes_no_container(
    engine: Engine, runtime: str, tmp_path: Path, document: object, words: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    result = engine.isula(
        *("create", "--runtime", runtime, "--security-opt", f"seccomp={path}"),
        *("busybox", "true"),
    )
    assert result.code == 125, result
    assert "invalid seccomp profile: " in result.err
    assert words in result.err
    assert engine.ok("ps", "-aq") == ""


def test_a_profile_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    result = engine.isula(
        "create", "--security-opt", f"seccomp={tmp_path}/none", "busybox", "true"
    )
    assert result.code == 125
    assert f"{tmp_path}/none" in result.err


def test_calls_that_nobody_knows_are_passed_over(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(rule(names=["mkdir", "mkdirat", "no_such_call_9"])))
    result = engine.isula(
        *("run", "--rm", "--runtime", runtime, "--security-opt", f"seccomp={path}"),
        *("busybox", "mkdir", "/tmp/x"),
    )
    assert result.code == 1
    assert "No space left on device" in result.err


def test_a_profile_for_other_machines_alone(engine: Engine, tmp_path: Path) -> None:
    """What is allowed would be unknown; runc says so, lxc has no words for it."""
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**rule(), "architectures": ["SCMP_ARCH_S390X"]}))
    result = engine.isula(
        *("run", "--name", "box", "--runtime", "lxc", "--security-opt", f"seccomp={path}"),
        *("busybox", "true"),
    )
    assert result.code == 125
    assert "architectures" in result.err or "leave" in result.err
    assert engine.state_of("box")["Status"] == "exited"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is no JSON"),
        ('{"defaultAction": "SCMP_ACT_PANIC"}', "unknown 'SCMP_ACT_PANIC'"),
        (None, "it cannot be read: No such file"),
    ],
)
def test_the_administrators_own_keeps_the_engine_from_starting(
    make_engine: Callable[..., Engine], tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "profile.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(AssertionError) as found:
        make_engine(config={"seccomp-profile": str(path)}, load=False)
    assert f"seccomp-profile {path}: " in str(found.value)
    assert words in str(found.value)
