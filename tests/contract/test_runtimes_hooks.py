"""Contract of the runtimes: OCI hooks, each kind at its place, the state on standard input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig import Engine

# native: qemu-user refuses clone(2) with namespaces
pytestmark = [pytest.mark.root, pytest.mark.lxc, pytest.mark.native]

SCRIPT = """\
#!/bin/sh
state=$(cat)
{{
    printf '%s' "$state"
    echo
    echo "$*"
    echo "${{MARK:-none}} ${{PATH_OF_NOBODY:-none}}"
    readlink /proc/self/ns/net
}} >{folder}/$1.new && echo $1 >>{folder}/order && mv {folder}/$1.new {folder}/$1
"""

# runc 1.1 says created at poststart
STATUS = {"poststart": ("running", "created"), "poststop": ("stopped",)}


def hook_file(folder: Path, table: dict[str, list[dict[str, object]]]) -> str:
    path = folder / "hooks.json"
    path.write_text(json.dumps(table))
    return str(path)


def test_hooks_before_and_after(engine: Engine, runtime: str, tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(SCRIPT.format(folder=tmp_path))
    script.chmod(0o755)
    kinds = ("prestart", "createRuntime", "poststart", "poststop")
    table: dict[str, list[dict[str, object]]] = {
        kind: [{"path": str(script), "args": ["hook", kind, "a b"], "env": ["MARK=set"]}]
        for kind in kinds
    }
    container = engine.ok(
        *("run", "-d", "--runtime", runtime, "--hook-spec", hook_file(tmp_path, table)),
        *("--name", "hooked", "busybox", "sleep", "1000"),
    )
    until((tmp_path / "poststart").exists, "the poststart hook")
    pid = engine.state_of("hooked")["Pid"]
    inside = engine.ok("exec", "hooked", "readlink", "/proc/self/ns/net")
    engine.ok("rm", "-f", "hooked")
    until((tmp_path / "poststop").exists, "the poststop hook")
    for kind in kinds:
        state, words, variables, network = (tmp_path / kind).read_text().splitlines()
        found = json.loads(state)
        assert found["id"] == container
        assert found["ociVersion"].startswith("1.")
        # runc leaves out a pid of 0
        assert found.get("pid", 0) == (0 if kind == "poststop" else pid)
        assert found["bundle"]
        assert found["status"] in STATUS.get(kind, ("creating", "created"))
        assert words == f"{kind} a b"
        assert variables == "set none"
        assert network != inside
    assert (tmp_path / "order").read_text().split() == list(kinds)


def test_hooks_in_the_namespaces_of_the_container(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    # createContainer is found on the host and runs in the container's namespaces,
    # startContainer is found in the container
    script = tmp_path / "hook"
    script.write_text(SCRIPT.format(folder=tmp_path))
    script.chmod(0o755)
    table: dict[str, list[dict[str, object]]] = {
        "createContainer": [{"path": str(script), "args": ["hook", "createContainer"]}],
        "startContainer": [
            {"path": "/bin/sh", "args": ["sh", "-c", "cat >/started; echo $0 >>/started", "it"]}
        ],
    }
    found = engine.ok(
        *("run", "--rm", "--runtime", runtime, "--hook-spec", hook_file(tmp_path, table)),
        *("busybox", "sh", "-c", "readlink /proc/self/ns/net; cat /started"),
    )
    network, state = found.split("\n", 1)
    document, _, word = state.rpartition("}")
    assert json.loads(document + "}")["id"]
    assert word.strip() == "it"
    assert (tmp_path / "createContainer").read_text().splitlines()[-1] == network


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_ends_the_start(
    engine: Engine, runtime: str, tmp_path: Path, kind: str
) -> None:
    script = tmp_path / "no"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    table: dict[str, list[dict[str, object]]] = {kind: [{"path": str(script)}]}
    result = engine.isula(
        *("run", "--name", "refused", "--runtime", runtime),
        *("--hook-spec", hook_file(tmp_path, table), "busybox", "echo", "never"),
    )
    assert result.code == 125
    assert "never" not in result.out
    assert "hook" in result.err
    assert engine.state_of("refused")["Status"] == "exited"
    assert not [place for place in engine.mounts() if "/storage/" in place]


def test_a_poststop_hook_that_fails_changes_nothing(
    engine: Engine, runtime: str, tmp_path: Path
) -> None:
    table: dict[str, list[dict[str, object]]] = {"poststop": [{"path": "/bin/false"}]}
    result = engine.isula(
        *("run", "--rm", "--runtime", runtime, "--hook-spec", hook_file(tmp_path, table)),
        *("busybox", "sh", "-c", "exit 4"),
    )
    assert result.code == 4
    assert engine.ok("ps", "-aq") == ""


def test_a_damaged_hook_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "hooks.json"
    path.write_text('{"prestart": [{"path": "relative"}]}')
    result = engine.isula("run", "--rm", "--hook-spec", str(path), "busybox", "true")
    assert result.code == 125
    assert "relative" in result.err
    path.write_text("{")
    assert engine.isula("run", "--rm", "--hook-spec", str(path), "busybox", "true").code == 125
