"""What crashes and reboots leave: undone when it is ours, left alone when it is not."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.network import Attach, Network
from isula_edge.network.cache import Cache, Entry
from tests.fakes.cni import NETNS, RESULT
from tests.rig import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.cni import FakeCni

POD = Attach("one", NETNS, "space", "web", "uid")


def attached(cni: FakeCni, *ids: str, owner: str = "us") -> None:
    async def work(network: Network) -> None:
        for name in ids:
            await network.attach(replace(POD, id=name))

    cni.run(work, owner=owner)


def collect(cni: FakeCni, *valid: str) -> list[errors.EngineError]:
    return cni.run(lambda network: network.collect(valid))


def test_attachments_without_container_are_undone(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    attached(cni, "one", "two", "three")
    assert collect(cni, "two") == []
    assert sorted(call["id"] for call in cni.calls("DEL")) == ["one", "three"]
    assert cni.cached() == ["pods-two-eth0"]
    assert {call["args"] for call in cni.calls("DEL")} < {c["args"] for c in cni.calls("ADD")}


def test_attachments_of_other_engines_are_left_alone(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    attached(cni, "one", owner="another engine")
    foreign = cni.cache / "results" / "pods-two-eth0"
    foreign.write_text(json.dumps(libcni()))
    (cni.cache / "results" / "nonsense").write_text("?")
    assert collect(cni) == []
    assert cni.order("DEL") == []
    assert cni.cached() == ["nonsense", "pods-one-eth0", "pods-two-eth0"]


def test_an_attach_that_a_crash_cut_short_is_undone(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "slow")
    attached(cni, "one")
    path = cni.cache / "results" / "pods-one-eth0"
    begun = json.loads(path.read_text())
    del begun["result"]
    path.write_text(json.dumps(begun))
    (path.parent / ".tmp-half").write_text("{")
    assert collect(cni) == []
    assert cni.order("DEL") == ["DEL slow", "DEL main"]
    assert "prevResult" not in cni.calls("DEL")[0]["conf"]
    assert cni.cached() == []


def test_the_file_of_an_attach_is_there_before_its_plugins(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.shell("main", "ADD", f"cp {cni.cache}/results/pods-one-eth0 {cni.folder}/seen")
    attached(cni, "one")
    seen = json.loads((cni.folder / "seen").read_text())
    assert "result" not in seen
    assert seen["cniArgs"]


def test_what_cannot_be_undone_stays(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    attached(cni, "one", "two")
    cni.fail("main", "DEL")
    assert len(collect(cni)) == 2
    assert len(cni.cached()) == 2
    cni.answer("main", "DEL", b"")
    assert collect(cni) == []
    assert cni.cached() == []


def test_an_attachment_of_a_network_that_nobody_knows_is_forgotten(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    attached(cni, "one")
    path = cni.cache / "results" / "pods-one-eth0"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config": "!"}))
    (cni.conf / "10.conflist").unlink()
    assert collect(cni) == []
    assert cni.cached() == []


def test_what_is_attached_meanwhile_is_valid(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")

    async def work(network: Network) -> None:
        await network.attach(POD)
        await network.collect([])

    cni.run(work)
    assert cni.order("DEL") == []


def test_plugins_of_1_1_are_told_what_is_valid(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "next", cniVersion="1.1.0")
    cni.network("20.conflist", "other", "other")
    cni.network("30.conflist", "never", "never", cniVersion="1.1.0", disableGC=True)
    attached(cni, "one", "two")
    # an error does not keep the next plugin from its turn
    cni.fail("main", "GC")
    assert collect(cni, "two") == []
    assert cni.order("DEL", "GC") == ["DEL next", "DEL main", "GC main", "GC next"]
    pairs = [{"containerID": "two", "ifname": "eth0"}]
    conf = cni.calls("GC")[0]["conf"]
    assert conf["cni.dev/valid-attachments"] == conf["cni.dev/attachments"] == pairs
    assert (conf["name"], conf["cniVersion"]) == ("pods", "1.1.0")


def test_nothing_is_attached_while_plugins_collect(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", cniVersion="1.1.0")
    wait = "touch {0}/begun; until [ -e {0}/go ]; do sleep 0.01; done"
    cni.shell("main", "GC", wait.format(cni.folder))

    async def work(network: Network) -> None:
        collecting = asyncio.create_task(network.collect([]))
        await asyncio.to_thread(until, (cni.folder / "begun").exists, "the collection")
        attaching = asyncio.create_task(network.attach(POD))
        await asyncio.sleep(0)
        assert not cni.calls("ADD")
        (cni.folder / "go").touch()
        await asyncio.gather(collecting, attaching)

    cni.run(work)
    assert cni.order() == ["GC main", "ADD main"]


# the files themselves


def libcni(**more: Any) -> dict[str, Any]:
    """A file as CNI's own library writes it."""
    conf = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "main"}]}
    return {
        "kind": "cniCacheV1",
        "containerId": "two",
        "config": base64.b64encode(json.dumps(conf).encode()).decode(),
        "ifName": "eth0",
        "networkName": "pods",
        "netns": "/ns",
        "cniArgs": [["K8S_POD_NAME", "web"]],
        "capabilityArgs": {"portMappings": [{"hostPort": 1}]},
        "result": {"cniVersion": "1.0.0", **RESULT},
        **more,
    }


def stored(folder: Path, text: str, name: str = "pods-two-eth0") -> Entry | None:
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / name).write_text(text)
    return Cache(str(folder)).load(name)


def test_our_files_are_those_of_the_library(tmp_path: Path) -> None:
    entry = stored(tmp_path, json.dumps(libcni()))
    assert entry is not None
    assert (entry.netns, entry.args, entry.owner) == ("/ns", (("K8S_POD_NAME", "web"),), "")
    cache = Cache(str(tmp_path))
    cache.save(entry, durable=True)
    path = tmp_path / "results" / "pods-two-eth0"
    written = json.loads(path.read_text())
    assert json.loads(base64.b64decode(written.pop("config")))["plugins"] == [{"type": "main"}]
    assert written.pop("isulaEdge") == {"owner": "", "order": 0}
    assert written == {key: value for key, value in libcni().items() if key != "config"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_iSulads_files_are_read(tmp_path: Path) -> None:  # noqa: N802
    ports = [{"hostPort": 1, "containerPort": 2, "protocol": "tcp"}]
    raw = libcni(
        config='{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"main"}]}',
        cni_args={"K8S_POD_NAME": "web"},
        portMappings=ports,
    )
    del raw["cniArgs"], raw["capabilityArgs"]
    entry = stored(tmp_path, json.dumps(raw))
    assert entry is not None
    assert entry.document["plugins"] == [{"type": "main"}]
    assert entry.args == (("K8S_POD_NAME", "web"),)
    assert entry.capabilities == {"portMappings": ports}


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "other"},
        {"kind": None},
        {"networkName": ""},
        {"networkName": "other"},
        {"containerId": 7},
        {"ifName": "../x"},
        {"cniArgs": 7},
        {"cniArgs": [["a"]]},
        {"cniArgs": [["a", 1]]},
    ],
)
def test_files_that_are_of_no_use(tmp_path: Path, more: dict[str, object]) -> None:
    assert stored(tmp_path, json.dumps(libcni(**more))) is None


@pytest.mark.parametrize(
    "more",
    [
        {"config": 7},
        {"config": "!"},
        {"config": base64.b64encode(b"[]").decode()},
        {"config": '{"name": "pods", "plugins": []}'},
        {"result": 7},
        {"result": {"cniVersion": "1.0.0", "ips": 7}},
        {"capabilityArgs": [], "isulaEdge": 7, "netns": 7},
        {"isulaEdge": {"owner": 7, "order": "x"}},
    ],
)
def test_files_of_which_a_part_is_of_use(tmp_path: Path, more: dict[str, object]) -> None:
    entry = stored(tmp_path, json.dumps(libcni(**more)))
    assert entry is not None
    assert entry.container_id == "two"
    assert (entry.result is None) == ("result" in more)
    assert (entry.document == {}) == ("config" in more)


def test_a_disk_that_refuses_the_file(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.cache.write_text("no directory")
    with pytest.raises(errors.Unavailable, match="cannot keep the CNI result"):
        cni.run(lambda network: network.attach(POD))
    assert cni.order("ADD") == []
