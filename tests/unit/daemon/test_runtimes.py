"""``runtimes`` of daemon.json: both spellings, shims, and every wrong value by name."""

from __future__ import annotations

from typing import Any

import pytest

from isula_edge import errors
from isula_edge.daemon import runtimes
from isula_edge.service.config import RuntimeConfig

KATA = "containerd-shim-kata-v2"
RUNC = "containerd-shim-runc-v2"

RIGHT: list[tuple[dict[str, Any], RuntimeConfig]] = [
    ({"path": "/usr/bin/crun"}, RuntimeConfig("/usr/bin/crun")),
    ({"path": "crun"}, RuntimeConfig("crun")),
    ({"path": "/a", "runtime-args": ["-x"]}, RuntimeConfig("/a", ("-x",))),
    ({"path": "/a", "runtimeArgs": ["-x", "y"]}, RuntimeConfig("/a", ("-x", "y"))),
    ({"path": "/a", "runtimeArgs": None, "options": {}}, RuntimeConfig("/a")),
    ({"path": "/a", "runtimeType": "oci", "timeout": 5}, RuntimeConfig("/a", timeout_s=5.0)),
    ({"path": "/a", "runtimeType": "io.containerd.runtime.v1.linux"}, RuntimeConfig("/a")),
    ({"path": "/a", "vm": True}, RuntimeConfig("/a", vm=True)),
    ({"path": "/usr/bin/kata-runtime"}, RuntimeConfig("/usr/bin/kata-runtime", vm=True)),
    ({"path": "/b/kata-runtime", "vm": False}, RuntimeConfig("/b/kata-runtime")),
    ({"runtimeType": "io.containerd.kata.v2"}, RuntimeConfig(KATA, type="shim", vm=True)),
    ({"runtime-type": "io.containerd.runc.v2"}, RuntimeConfig(RUNC, type="shim")),
    ({"runtimeType": "io.containerd.kata-qemu.v2", "vm": False},
     RuntimeConfig("containerd-shim-kata-qemu-v2", type="shim")),
    ({"path": f"/opt/{KATA}"}, RuntimeConfig(f"/opt/{KATA}", type="shim", vm=True)),
    ({"runtimeType": f"/opt/{KATA}"}, RuntimeConfig(f"/opt/{KATA}", type="shim", vm=True)),
    ({"path": "/x", "runtimeType": "io.containerd.kata.v2"},
     RuntimeConfig("/x", type="shim", vm=True)),
    ({"runtimeType": "io.containerd.kata.v2", "options": {"ConfigPath": "/k.toml"}},
     RuntimeConfig(KATA, type="shim", options={"ConfigPath": "/k.toml"}, vm=True)),
    ({"runtimeType": "io.containerd.runc.v2",
      "options": {"BinaryName": "crun", "SystemdCgroup": True, "IoUid": 0, "Root": "/r"}},
     RuntimeConfig(RUNC, type="shim", options={
         "BinaryName": "crun", "SystemdCgroup": True, "IoUid": 0, "Root": "/r"})),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), RIGHT)
def test_both_forms(entry: dict[str, Any], expected: RuntimeConfig) -> None:
    assert runtimes.parse({"name": entry}) == {"name": expected}


WRONG: list[tuple[Any, str]] = [
    ("/bin/a", "must be an object of"),
    ([], "must be an object of"),
    (None, "must be an object of"),
    ({}, "either path or runtimeType is needed"),
    ({"path": ""}, "either path or runtimeType is needed"),
    ({"runtimeType": "oci"}, "either path or runtimeType is needed"),
    ({"path": "./relative"}, "path must be absolute"),
    ({"path": 5}, "path must be a string"),
    ({"path": "/a\0b"}, "path must be a string"),
    ({"path": "/a", "runtimeargs": []}, "unknown key runtimeargs; there are options, path, "),
    ({"path": "/a", "runtime-args": "-x"}, "runtime-args must be a list of strings"),
    ({"path": "/a", "runtimeArgs": [1]}, "runtimeArgs must be a list of strings"),
    ({"path": "/a", "runtimeArgs": ["a\0"]}, "runtimeArgs must be a list of strings"),
    ({"path": "/a", "runtimeArgs": ["x"] * 101}, "runtimeArgs has 101 words, the most are 100"),
    ({"path": "/a", "runtimeArgs": [], "runtime-args": []}, "are the same key"),
    ({"runtimeType": "io.containerd.kata.v2", "runtime-type": "x"}, "are the same key"),
    ({"path": "/a", "runtimeType": "kata"}, "runtimeType must be oci or like io.containerd"),
    ({"path": "/a", "runtimeType": 2}, "runtimeType must be a string"),
    ({"runtimeType": "io.containerd.runc.v1"}, "io.containerd.runc.v1 is version 1, 2 is needed"),
    ({"runtimeType": "/opt/shim"}, "runtimeType /opt/shim is no file containerd-shim-NAME-v2"),
    ({"runtimeType": "io.containerd.../../x.v2"}, "runtimeType must be oci or like"),
    ({"path": "/usr/bin/containerd-shim-runc-v1"}, "is a shim of version 1, 2 is needed"),
    ({"path": "/a", "options": {"Root": "/r"}}, "options are for a runtimeType"),
    ({"runtimeType": "io.containerd.kata.v2", "options": []}, "options must be an object"),
    ({"runtimeType": "io.containerd.kata.v2", "options": {"Root": "/r"}}, "unknown option Root"),
    ({"runtimeType": "io.containerd.kata.v2", "options": {"ConfigPath": 5}},
     "option ConfigPath must be a string"),
    ({"runtimeType": "io.containerd.kata.v2", "options": {"ConfigPath": "k.toml"}},
     "option ConfigPath must be an absolute path"),
    ({"runtimeType": "io.containerd.runc.v2", "options": {"ConfigPath": "/k"}},
     "unknown option ConfigPath"),
    ({"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": 1}},
     "option SystemdCgroup must be true or false"),
    ({"runtimeType": "io.containerd.runc.v2", "options": {"IoUid": -1}}, "option IoUid must be a"),
    ({"runtimeType": "io.containerd.runc.v2", "options": {"IoUid": True}}, "option IoUid must be"),
    ({"runtimeType": "io.containerd.kata.v2", "runtimeArgs": ["-x"]}, "a shim takes options"),
    ({"path": "/a", "vm": "yes"}, "vm must be true or false"),
    ({"path": "/a", "timeout": "5s"}, "timeout must be a number of seconds from 1 to 3600"),
    ({"path": "/a", "timeout": 0}, "timeout must be a number"),
    ({"path": "/a", "timeout": True}, "timeout must be a number"),
    ({"path": "/a", "timeout": 3601}, "timeout must be a number"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "words"), WRONG)
def test_a_wrong_entry_is_refused_by_name(entry: Any, words: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        runtimes.parse({"good": {"path": "/a"}, "odd": entry})
    assert str(found.value).startswith("runtimes: odd: ")
    assert words in str(found.value)
    assert found.value.ref == "runtimes"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", "a/b", "a b", "a\n", "\u00e4", "x" * 65, "a\0"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^runtimes: .* is no name"):
        runtimes.parse({name: {"path": "/a"}})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["LXC"], "lxc is built in"),
        (["lcr"], "lxc is built in"),
        (["pods"], "a folder of the engine's own"),
        (["Exits"], "a folder of the engine's own"),
        (["kata", "Kata"], "Kata and kata differ in capitals only"),
    ],
)
def test_names_that_are_taken(names: list[str], words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        runtimes.parse({name: {"path": "/a"} for name in names})


def test_names_of_all_kinds() -> None:
    table = {name: {"path": "/a"} for name in ("runc", "io.containerd.kata.v2", "Kata_1-x")}
    assert list(runtimes.parse(table)) == list(table)
