"""CDI: devices that vendors describe, and what a container gets of them."""

from __future__ import annotations

import json
import os
import stat
import sys
from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.oci.cdi import Cdi, annotated, apply
from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings, from_record, to_record

if TYPE_CHECKING:
    from pathlib import Path

NULL = {"type": "c", "major": 1, "minor": 3, "access": "rwm"}
NULL_MODE = stat.S_IMODE(os.stat("/dev/null").st_mode)


class Folder:
    """Two directories of files: ``etc`` and ``run``, which wins."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.cdi = Cdi([str(top / "etc"), str(top / "run")])
        self.stamp = 1

    def put(
        self,
        edits: dict[str, Any] | None = None,
        *,
        name: str = "a",
        file: str = "etc/x.json",
        common: dict[str, Any] | None = None,
        **changed: Any,
    ) -> None:
        document = {
            "cdiVersion": "1.0.0",
            "kind": "v.com/c",
            "devices": [{"name": name, "containerEdits": edits or {}}],
            "containerEdits": common or {},
        }
        self.text(json.dumps({**document, **changed}), file)

    def text(self, text: str, file: str = "etc/x.json") -> None:
        path = self.top / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        # a change is seen by the time of the file, whatever the clock's resolution
        self.stamp += 1
        os.utime(path, ns=(self.stamp, self.stamp))

    def applied(self, *names: str, to: Settings | None = None) -> Settings:
        settings = to or Settings()
        self.cdi.apply(settings, names or ["v.com/c=a"])
        return settings

    def refused(self, kind: type[errors.EngineError], *names: str) -> errors.EngineError:
        """The error; nothing may have been changed."""
        settings = Settings(env=["A=1"])
        before = deepcopy(settings)
        with pytest.raises(kind) as caught:
            self.cdi.apply(settings, names or ["v.com/c=a"])
        assert settings == before
        return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_edits_of_all_devices_come_once_and_first(folder: Folder) -> None:
    devices = [
        {"name": name, "containerEdits": {"env": [f"{name.upper()}=1"], "additionalGids": [7, 0]}}
        for name in "abc"
    ]
    folder.put(devices=devices, common={"env": ["ALL=1"], "additionalGIDs": [9]})
    settings = folder.applied("v.com/c=b", "v.com/c=a", "v.com/c=b", to=Settings(env=["X=1"]))
    assert settings.env == ["X=1", "ALL=1", "B=1", "A=1"]
    assert settings.group_add == ["9", "7"]


def test_a_node_is_as_the_host_has_it(folder: Folder) -> None:
    folder.put({"deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null"}]})
    settings = folder.applied(to=Settings(devices=[("/dev/zero", "/dev/x", "r")]))
    assert settings.device_nodes == [{"path": "/dev/x", "fileMode": NULL_MODE, **NULL}]
    assert settings.devices == []
    assert from_record(to_record(settings)) == settings


def test_a_node_without_a_path_of_the_host(folder: Folder) -> None:
    folder.put({"deviceNodes": [{"path": "/dev/null", "permissions": "r"}]})
    assert folder.applied().device_nodes == [
        {"path": "/dev/null", "fileMode": NULL_MODE, **NULL, "access": "r"}
    ]


def test_a_node_that_is_described_needs_none_on_the_host(folder: Folder) -> None:
    node = {"path": "/dev/x", "type": "b", "major": 8, "minor": 1, "fileMode": 0o640}
    folder.put({"deviceNodes": [{**node, "uid": 5, "gid": 6, "permissions": "none"}]})
    assert folder.applied().device_nodes == [{**node, "uid": 5, "gid": 6, "access": ""}]


def test_a_fifo_has_no_numbers(folder: Folder) -> None:
    folder.put({"deviceNodes": [{"path": "/dev/x", "type": "p"}]})
    assert folder.applied().device_nodes == [
        {"path": "/dev/x", "type": "p", "fileMode": 0o666, "access": ""}
    ]


@pytest.mark.parametrize(
    ("node", "word"),
    [
        ({"path": "/dev/nothing"}, "/dev/nothing not found"),
        ({"path": "/dev/x", "hostPath": "/etc"}, "/etc is no device"),
        ({"path": "/dev/null", "type": "b"}, "is of type c"),
    ],
)
def test_a_node_must_be_there(folder: Folder, node: dict[str, Any], word: str) -> None:
    folder.put({"env": ["A=2"], "deviceNodes": [node]})
    assert word in str(folder.refused(errors.FailedPrecondition))


def test_mounts(folder: Folder) -> None:
    folder.put(
        {
            "mounts": [
                {"hostPath": "/etc", "containerPath": "/b", "options": ["ro", "nosuid", "rbind"]},
                {"hostPath": "/etc/", "containerPath": "/a/./x", "options": ["rslave", "rro"]},
                {"hostPath": "/etc", "containerPath": "/c", "type": "none", "options": ["bind"]},
                {"hostPath": "x", "containerPath": "/t", "type": "tmpfs", "options": ["size=1m"]},
            ]
        }
    )
    mine = [Mount("bind", "/var", "/b"), Mount("bind", "/var", "/z")]
    assert folder.applied(to=Settings(mounts=mine)).mounts == [
        Mount("bind", "/etc", "/a/x", True, "rslave", recursive_read_only=True),
        Mount("bind", "/etc", "/b", True, "rprivate", ("nosuid",)),
        Mount("bind", "/etc", "/c"),
        Mount("tmpfs", "", "/t", False, "", ("size=1m",)),
        mine[1],
    ]


@pytest.mark.parametrize(
    ("mount", "kind"),
    [
        ({"hostPath": "/nothing"}, errors.FailedPrecondition),
        ({"hostPath": "/etc", "options": ["X-mount.mkdir"]}, errors.Unimplemented),
        ({"hostPath": "/etc", "type": "ext4"}, errors.Unimplemented),
        ({"hostPath": "tmpfs", "type": "tmpfs", "options": ["lower=/"]}, errors.Unimplemented),
    ],
)
def test_mounts_that_cannot_be(
    folder: Folder, mount: dict[str, Any], kind: type[errors.EngineError]
) -> None:
    folder.put({"mounts": [{"containerPath": "/x", **mount}]})
    folder.refused(kind)


def test_hooks_come_behind_those_that_are_there(folder: Folder, tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.touch(0o755)
    hook = {"path": str(program), "args": ["hook", "-x"], "env": ["A=1"], "timeout": 3}
    inside = {"path": "/inside", "args": ["inside"]}
    folder.put(
        {
            "hooks": [
                {"hookName": "createRuntime", **hook},
                {"hookName": "startContainer", **inside},
            ]
        }
    )
    if os.geteuid() != 0:
        folder.refused(errors.InvalidArgument)
        return
    mine = {"createRuntime": [{"path": "/mine"}]}
    assert folder.applied(to=Settings(hooks=mine)).hooks == {
        "createRuntime": [{"path": "/mine"}, hook],
        "startContainer": [inside],
    }
    # hooks of all containers are shared
    assert mine == {"createRuntime": [{"path": "/mine"}]}
    program.chmod(0o777)
    folder.refused(errors.InvalidArgument)


@pytest.mark.parametrize("key", ["intelRdt", "netDevices"])
def test_what_no_runtime_can_do_is_refused(folder: Folder, key: str) -> None:
    folder.put({key: [{"name": "x"}], "env": ["A=2"]})
    assert key in str(folder.refused(errors.Unimplemented))


def test_names_that_nothing_describes_are_all_listed(folder: Folder) -> None:
    folder.put()
    folder.text("{", "run/broken.json")
    error = folder.refused(errors.NotFound, "v.com/c=a", "v.com/c=x", "w.com/c=a")
    assert str(error) == "unresolvable CDI devices v.com/c=x, w.com/c=a"
    assert "run/broken.json: " in error.hint


def test_a_later_directory_wins(folder: Folder) -> None:
    folder.put({"env": ["A=etc"]})
    folder.put({"env": ["A=run"]}, file="run/y.json")
    assert folder.applied().env == ["A=run"]


def test_two_of_one_directory_are_a_conflict_unless_a_later_one_has_it(folder: Folder) -> None:
    folder.put({"env": ["A=1"]})
    folder.put({"env": ["A=2"]}, file="etc/y.json")
    error = folder.refused(errors.NotFound)
    assert "etc/x.json and by " in error.hint
    folder.put({"env": ["A=3"]}, file="run/y.json")
    assert folder.applied().env == ["A=3"]


def test_changes_are_seen_and_nothing_is_read_twice(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.cdi.devices() == []
    folder.put({"env": ["A=1"]})
    assert folder.applied().env == ["A=1"]
    with monkeypatch.context() as patch:
        patch.setattr("isula_edge.oci.cdi._read", None)
        assert folder.applied().env == ["A=1"]
    folder.put({"env": ["A=2"]})
    assert folder.applied().env == ["A=2"]
    (folder.top / "etc/x.json").unlink()
    folder.refused(errors.NotFound)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"cdiVersion": "0.2.0"}, "cdiVersion"),
        ({"cdiVersion": 1}, "cdiVersion"),
        ({"kind": "v.com"}, "kind"),
        ({"kind": "v.com/c/d"}, "kind"),
        ({"devices": []}, "no devices"),
        ({"devices": [7]}, "no object"),
        ({"devices": [{"name": "-a"}]}, "device name"),
        ({"devices": [{"name": "a"}, {"name": "a"}]}, "twice"),
        ({"devices": [{"name": "a", "edits": {}}]}, "edits"),
        ({"other": 1}, "other"),
        ({"containerEdits": []}, "containerEdits"),
        ({"containerEdits": {"env": ["A"]}}, "'A'"),
        ({"containerEdits": {"env": "A=1"}}, "env"),
        ({"containerEdits": {"env": ["A=\0"]}}, "env"),
        ({"containerEdits": {"rlimits": []}}, "rlimits"),
        ({"containerEdits": {"additionalGids": [-1]}}, "additionalGids"),
        ({"containerEdits": {"additionalGids": [True]}}, "additionalGids"),
        ({"containerEdits": {"deviceNodes": [{}]}}, "lacks path"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev/x"}]}}, "absolute"),
        ({"containerEdits": {"deviceNodes": [{"path": "//"}]}}, "cannot be /"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "major": "8"}]}}, "major"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "type": "d"}]}}, "type"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "x"}]}}, "permissions"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x"}]}}, "lacks containerPath"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "/"}]}}, "at /"),
        ({"containerEdits": {"hooks": [{"hookName": "x", "path": "/x"}]}}, "hookName"),
        ({"containerEdits": {"hooks": [{"hookName": "poststop", "path": "x"}]}}, "absolute"),
    ],
)
def test_a_wrong_file_is_named_and_harms_no_other(
    folder: Folder, changed: dict[str, Any], word: str
) -> None:
    folder.put(**changed)
    folder.put(name="good", file="etc/good.json")
    assert folder.applied("v.com/c=good").env == []
    error = folder.refused(errors.NotFound)
    assert "etc/x.json: " in error.hint
    assert word in error.hint


@pytest.mark.parametrize("text", ["", "[]", "7", "\xff", "[" * 100_000])
def test_a_file_of_something_else(folder: Folder, text: str) -> None:
    folder.text(text)
    assert "etc/x.json: " in folder.refused(errors.NotFound).hint


def test_a_file_that_everybody_may_write_is_not_used(folder: Folder) -> None:
    folder.put()
    (folder.top / "etc/x.json").chmod(0o666)
    folder.stamp += 1
    assert "everybody" in folder.refused(errors.NotFound).hint


@pytest.mark.parametrize("version", ["0.3.0", "v0.5.0", "0.7.0", "1.0.0", "1.1.0"])
def test_versions(folder: Folder, version: str) -> None:
    folder.put({"env": ["A=1"]}, cdiVersion=version)
    assert folder.applied().env == ["A=1"]


def test_yaml_is_read_where_python_can_and_else_the_error_says_so(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # JSON is YAML
    folder.put({"env": ["A=1"]}, file="etc/x.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "PyYAML" in folder.refused(errors.NotFound).hint
    parser = SimpleNamespace(safe_load=json.loads, YAMLError=json.JSONDecodeError)
    monkeypatch.setitem(sys.modules, "yaml", parser)
    folder.put({"env": ["A=1"]}, file="etc/x.yaml")
    assert folder.applied().env == ["A=1"]
    folder.text("{", "etc/x.yaml")
    assert "no YAML" in folder.refused(errors.NotFound).hint


def test_names_in_annotations_each_once() -> None:
    annotations = {"cdi.k8s.io/b": "v.com/c=b,v.com/c=a", "cdi.k8s.io/a": "v.com/c=a", "x": "y"}
    assert annotated(annotations) == ["v.com/c=a", "v.com/c=b"]
    assert annotated({}) == []


@pytest.mark.parametrize("name", ["", "a", "v.com/c", "v.com/c=", "/c=a", "v.com/c=a ", "v/c=a b"])
def test_names_that_are_none(folder: Folder, name: str) -> None:
    folder.put()
    assert repr(name) in str(folder.refused(errors.InvalidArgument, "v.com/c=a", name))


def test_directories_are_remembered(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put({"env": ["A=1"]})
    for _ in range(2):
        settings = Settings()
        apply(settings, ["v.com/c=a"], [str(folder.top / "etc")])
        assert settings.env == ["A=1"]
        monkeypatch.setattr("isula_edge.oci.cdi._read", None)
