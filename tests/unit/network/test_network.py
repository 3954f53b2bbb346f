"""Attaching, detaching and checking with fake plugins: who is called, with what, in which order."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.network import Attach, Choice, Network, PortMapping
from tests.fakes.cni import NETNS, RESULT
from tests.rig import until

if TYPE_CHECKING:
    from tests.fakes.cni import FakeCni

POD = Attach("c0ffee", NETNS, "space", "web", "uid-1")
PORTS = {"type": "ports", "capabilities": {"portMappings": True, "bandwidth": False}}


def extra(*networks: tuple[str, str]) -> dict[str, str]:
    wanted = [{"name": name, "interface": interface} for name, interface in networks]
    return {"network.alpha.kubernetes.io/network": json.dumps(wanted)}


def test_a_chain_is_run_in_order_and_undone_in_reverse(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", PORTS)
    pod = replace(POD, port_mappings=[PortMapping("tcp", 80, 8080)])
    result = cni.run(lambda network: network.attach(pod))
    cni.run(lambda network: network.detach(pod))
    assert cni.order() == ["ADD main", "ADD ports", "DEL ports", "DEL main"]
    first, second, undo, _ = (call["conf"] for call in cni.calls())
    assert first == {"type": "main", "name": "pods", "cniVersion": "1.0.0"}
    whole = {"cniVersion": "1.0.0", **RESULT}
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    common = {"name": "pods", "cniVersion": "1.0.0", "prevResult": whole, "runtimeConfig": ports}
    assert second == undo == {**PORTS, **common}
    assert {(call["id"], call["netns"], call["ifname"]) for call in cni.calls()} == {
        ("c0ffee", NETNS, "eth0")
    }
    assert cni.calls()[0]["args"].startswith("IgnoreUnknown=1;K8S_POD_NAMESPACE=space;")
    assert result.ips == ["10.1.0.2"]
    assert result.raw == {"eth0": whole}
    assert result.routes == [{"dst": "0.0.0.0/0"}]
    assert result.dns == {"nameservers": ["10.1.0.1"]}
    interface = result.interfaces[0]
    assert (interface.name, interface.network, interface.mac) == (
        "eth0",
        "pods",
        "02:00:00:00:00:01",
    )
    assert cni.cached() == []


def test_the_previous_result_has_the_version_of_the_list(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "next", cniVersion="0.3.1")
    cni.answer("main", "ADD", {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]})
    cni.answer("next", "ADD", {"ip4": {}, "ips": []})
    cni.run(lambda network: network.attach(POD))
    assert cni.calls("ADD")[1]["conf"]["prevResult"] == {
        "cniVersion": "0.3.1",
        "ips": [{"version": "4", "address": "10.1.0.2/24"}],
    }


def test_before_0_4_a_removal_has_no_previous_result(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", cniVersion="0.3.1")
    cni.run(lambda network: network.attach(POD))
    assert len(cni.cached()) == 1
    cni.run(lambda network: network.detach(POD))
    assert "prevResult" not in cni.calls("DEL")[0]["conf"]
    assert cni.cached() == []


def test_old_results(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", cniVersion="0.2.0")
    cni.answer("main", "ADD", {"ip4": {"ip": "10.1.0.7/24"}, "ip6": {"ip": "fd00::7/64"}})
    assert cni.run(lambda network: network.attach(POD)).ips == ["10.1.0.7", "fd00::7"]


def test_without_configuration(cni: FakeCni) -> None:
    assert cni.run(lambda network: network.status()) == "cni config uninitialized"
    with pytest.raises(errors.FailedPrecondition, match="cni config uninitialized"):
        cni.run(lambda network: network.attach(POD))
    cni.run(lambda network: network.detach(POD))
    assert cni.calls() == []


def test_a_failure_undoes_everything_in_reverse(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "bad")
    cni.network("20.conflist", "other", "second")
    cni.fail("bad", "ADD", 100, "no address left")
    pod = replace(POD, annotations=extra(("other", "eth1")))
    with pytest.raises(errors.Unavailable) as caught:
        cni.run(lambda network: network.attach(pod))
    assert str(caught.value) == (
        "network pods on eth0: plugin bad failed (ADD): no address left; details"
    )
    assert cni.order() == [
        "ADD second", "ADD main", "ADD bad", "DEL bad", "DEL main", "DEL second",
    ]  # fmt: skip
    assert cni.cached() == []


def test_an_undoing_that_fails_can_be_done_later(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "bad")
    cni.fail("bad", "ADD", 100, "the first error")
    cni.fail("bad", "DEL", 100, "the second error")
    with pytest.raises(errors.Unavailable, match="the first error"):
        cni.run(lambda network: network.attach(POD))
    assert cni.order("DEL") == ["DEL bad", "DEL main"]
    assert cni.cached() == ["pods-c0ffee-eth0"]
    with pytest.raises(errors.AlreadyExists):
        cni.run(lambda network: network.attach(POD))
    with pytest.raises(errors.Unavailable, match="the second error"):
        cni.run(lambda network: network.detach(POD))
    cni.answer("bad", "DEL", b"")
    cni.run(lambda network: network.detach(POD))
    assert cni.cached() == []


def test_nothing_is_begun_when_a_plugin_is_missing(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "gone")
    (cni.bin / "gone").unlink()
    with pytest.raises(errors.FailedPrecondition, match='Failed to find plugin: "gone"'):
        cni.run(lambda network: network.attach(POD))
    assert cni.calls() == []
    assert cni.cached() == []
    assert 'Failed to find plugin: "gone"' in cni.run(lambda network: network.status())


def test_a_missing_plugin_does_not_keep_the_others_from_a_removal(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "gone")
    cni.run(lambda network: network.attach(POD))
    (cni.bin / "gone").unlink()
    with pytest.raises(errors.FailedPrecondition, match="gone"):
        cni.run(lambda network: network.detach(POD))
    assert cni.order("DEL") == ["DEL main"]
    assert len(cni.cached()) == 1


def test_a_container_that_a_plugin_does_not_know_is_removed(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.attach(POD))
    cni.fail("main", "DEL", 3)
    cni.run(lambda network: network.detach(POD))
    assert cni.cached() == []


def test_a_container_cannot_be_attached_twice(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.attach(POD))
    with pytest.raises(errors.AlreadyExists):
        cni.run(lambda network: network.attach(POD))
    assert cni.order() == ["ADD main"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-a", "a b"])
def test_ids_that_are_refused(cni: FakeCni, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        cni.run(lambda network: network.attach(replace(POD, id=name)))


def test_a_namespace_that_is_gone_is_not_named(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.attach(POD))
    left = cni.folder / "left"
    left.touch()
    # what is left of a bind mount is no namespace
    cni.run(lambda network: network.detach(replace(POD, netns=str(left))))
    assert cni.calls("DEL")[0]["netns"] == ""
    cni.run(lambda network: network.attach(POD))
    cni.run(lambda network: network.detach(replace(POD, netns="")))
    assert cni.calls("DEL")[1]["netns"] == ""


def test_a_plugin_that_needs_a_namespace_that_is_gone(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.attach(POD))
    cni.fail("main", "DEL", 4, "required env variables [CNI_NETNS] missing")
    with pytest.raises(errors.Unavailable, match="CNI_NETNS"):
        cni.run(lambda network: network.detach(POD))
    cni.run(lambda network: network.detach(replace(POD, netns="")))
    assert cni.cached() == []


def test_a_removal_uses_what_the_making_used(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", {"type": "main", "key": "old"}, PORTS)
    pod = replace(POD, port_mappings=[PortMapping("udp", 53, 5353)])
    cni.run(lambda network: network.attach(pod))
    cni.network("10.conflist", "pods", {"type": "main", "key": "new"})
    cni.run(lambda network: network.detach(Attach(POD.id, NETNS)))
    assert cni.order("DEL") == ["DEL ports", "DEL main"]
    add, undo = cni.calls("ADD")[1], cni.calls("DEL")[0]
    assert undo["conf"] == {**add["conf"], "prevResult": {"cniVersion": "1.0.0", **RESULT}}
    assert undo["args"] == add["args"] != ""
    assert cni.calls("DEL")[1]["conf"]["key"] == "old"


def test_a_removal_without_cache_uses_what_there_is_now(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.detach(POD))
    assert cni.order() == ["DEL main"]
    assert cni.calls()[0]["args"] != ""


@pytest.mark.parametrize("text", ["", "nonsense", "{}", '{"kind": "cniCacheV1"}', "[" * 100_000])
def test_a_damaged_cache_file_is_as_good_as_none(cni: FakeCni, text: str) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.run(lambda network: network.attach(POD))
    (cni.cache / "results" / "pods-c0ffee-eth0").write_text(text)
    cni.run(lambda network: network.detach(POD))
    assert cni.order() == ["ADD main", "DEL main"]
    assert cni.cached() == []


def test_extra_networks_get_no_ports(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", PORTS)
    cni.network("20.conflist", "other", PORTS)
    annotations = extra(("other", "net1"))
    pod = replace(POD, annotations=annotations, port_mappings=[PortMapping("tcp", 80, 8080)])
    result = cni.run(lambda network: network.attach(pod))
    assert [(i.network, i.name) for i in result.interfaces] == [("other", "net1"), ("pods", "eth0")]
    assert "runtimeConfig" not in cni.calls()[0]["conf"]
    assert "runtimeConfig" in cni.calls()[1]["conf"]
    cni.run(lambda network: network.detach(POD))
    assert [call["ifname"] for call in cni.calls("DEL")] == ["eth0", "net1"]


def test_native_networks_are_not_for_pods(cni: FakeCni) -> None:
    cni.network("isulacni-1.conflist", "native", "main")
    assert cni.run(lambda network: network.status()) == "cni config uninitialized"

    async def names(network: Network) -> list[str]:
        return [found.name for found in network.networks(native=True)]

    assert cni.run(names) == ["native"]


def test_networks_by_name(cni: FakeCni) -> None:
    wanted = {"ips": True, "mac": True, "aliases": True, "portMappings": True}
    cni.network("10.conflist", "pods", "other")
    cni.network("isulacni-1.conflist", "native", {"type": "main", "capabilities": wanted})
    choice = Choice("native", "eth3", "02:00:00:00:00:09", ("10.1.0.9",), ("db",), primary=True)
    container = Attach("c1", NETNS, port_mappings=[PortMapping("tcp", 1, 2)], networks=(choice,))
    cni.run(lambda network: network.attach(container))
    (call,) = cni.calls()
    assert (call["ifname"], call["args"]) == ("eth3", "IgnoreUnknown=1")
    assert call["conf"]["runtimeConfig"] == {
        "ips": ["10.1.0.9"],
        "mac": "02:00:00:00:00:09",
        "aliases": ["db"],
        "portMappings": [{"hostPort": 2, "containerPort": 1, "protocol": "tcp"}],
    }
    unknown = replace(container, id="c2", networks=(Choice("unknown", "eth0"),))
    with pytest.raises(errors.NotFound):
        cni.run(lambda network: network.attach(unknown))


def test_the_newest_version_that_all_plugins_speak(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "old", cniVersions=["0.4.0", "1.0.0", "1.1.0"])
    cni.answer("old", "VERSION", {"supportedVersions": ["0.3.1", "0.4.0"]})

    async def twice(network: Network) -> None:
        await network.attach(POD)
        await network.attach(replace(POD, id="second"))

    cni.run(twice)
    assert cni.order("VERSION") == ["VERSION main", "VERSION old"]
    assert {call["conf"]["cniVersion"] for call in cni.calls("ADD")} == {"0.4.0"}
    cni.run(lambda network: network.detach(POD))
    assert "cniVersions" not in cni.calls("DEL")[0]["conf"]
    assert cni.calls("DEL")[0]["conf"]["cniVersion"] == "0.4.0"


def test_plugins_are_not_asked_for_a_version_without_need(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", cniVersion="1.1.0")
    cni.run(lambda network: network.attach(POD))
    assert cni.order() == ["ADD main"]


def test_a_version_that_a_plugin_does_not_speak(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    cni.fail("main", "ADD", 1, "incompatible")
    cni.fail("main", "DEL", 1, "incompatible")
    cni.answer("main", "VERSION", {"supportedVersions": ["0.3.1", "0.4.0"]})
    with pytest.raises(errors.Unavailable) as caught:
        cni.run(lambda network: network.attach(POD))
    assert caught.value.hint == "it speaks CNI 0.3.1, 0.4.0: change cniVersion"
    assert cni.cached() == []


# CHECK and STATUS


def test_a_check_has_the_result_and_the_arguments_of_the_making(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "next")
    cni.run(lambda network: network.attach(POD))
    cni.run(lambda network: network.check(Attach(POD.id, NETNS)))
    assert cni.order("CHECK") == ["CHECK main", "CHECK next"]
    call = cni.calls("CHECK")[0]
    assert call["conf"]["prevResult"] == {"cniVersion": "1.0.0", **RESULT}
    assert (call["args"], call["netns"]) == (cni.calls("ADD")[0]["args"], NETNS)
    cni.fail("main", "CHECK", 100, "gone")
    with pytest.raises(errors.Unavailable, match="gone"):
        cni.run(lambda network: network.check(POD))


@pytest.mark.parametrize("more", [{"cniVersion": "0.3.1"}, {"disableCheck": True}])
def test_checks_that_are_not_done(cni: FakeCni, more: dict[str, object]) -> None:
    cni.network("10.conflist", "pods", "main", **more)
    cni.run(lambda network: network.attach(POD))
    cni.run(lambda network: network.check(POD))
    assert cni.order("CHECK") == []


def test_a_check_of_what_is_not_attached(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    with pytest.raises(errors.FailedPrecondition):
        cni.run(lambda network: network.check(POD))


def test_the_status_of_plugins(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "next", cniVersion="1.1.0")
    cni.network("20.conflist", "other", "other", cniVersion="1.1.0")
    assert cni.run(lambda network: network.status()) == ""
    assert cni.order() == ["STATUS main", "STATUS next"]
    assert cni.calls()[0]["conf"] == {"type": "main", "name": "pods", "cniVersion": "1.1.0"}
    assert (cni.calls()[0]["id"], cni.calls()[0]["ifname"]) == ("", "")
    cni.fail("next", "STATUS", 50, "the daemon is down")
    assert cni.run(lambda network: network.status()) == (
        "network pods: plugin next failed (STATUS): the daemon is down; details"
    )
    # a plugin that does not know the command
    cni.fail("next", "STATUS", 4, "unknown CNI_COMMAND: STATUS")
    assert cni.run(lambda network: network.status()) == ""


def test_before_1_1_nobody_is_asked_for_a_status(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    assert cni.run(lambda network: network.status()) == ""
    assert cni.calls() == []


# pod CIDR


def test_the_first_pod_cidr_stays(cni: FakeCni, caplog: pytest.LogCaptureFixture) -> None:
    cni.network("10.conflist", "pods", {"type": "main", "capabilities": {"ipRanges": True}})

    async def work(network: Network) -> None:
        network.set_pod_cidr([])
        network.set_pod_cidr(["10.1.0.0/24,fd00::/64"])
        network.set_pod_cidr(["10.1.0.0/24", "fd00::/64"])
        network.set_pod_cidr([])
        assert caplog.text == ""
        network.set_pod_cidr(["10.2.0.0/24"])
        assert "is ignored" in caplog.text
        with pytest.raises(errors.InvalidArgument):
            network.set_pod_cidr(["nonsense"])
        await network.attach(POD)

    cni.run(work)
    ranges = [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]
    assert cni.calls()[0]["conf"]["runtimeConfig"] == {"ipRanges": ranges}


# several at once


def test_one_thing_at_a_time_for_a_container_and_many_for_many(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main")
    # the attach of "first" ends after that of "second" has begun
    wait = 'if [ $CNI_CONTAINERID = first ]; then until [ -e {0}/go ]; do sleep 0.01; done; fi'
    cni.shell("main", "ADD", wait.format(cni.folder))

    async def work(network: Network) -> None:
        first = asyncio.create_task(network.attach(replace(POD, id="first")))
        removal = asyncio.create_task(network.detach(replace(POD, id="first")))
        await network.attach(replace(POD, id="second"))
        await asyncio.to_thread(until, lambda: len(cni.calls("ADD")) == 2, "both calls")
        assert not removal.done()
        (cni.folder / "go").touch()
        await asyncio.gather(first, removal)

    cni.run(work)
    ids = [(call["command"], call["id"]) for call in cni.calls()]
    assert ids.index(("DEL", "first")) > ids.index(("ADD", "first"))
    assert cni.cached() == ["pods-second-eth0"]


def test_a_caller_that_gives_up_leaves_nothing(cni: FakeCni) -> None:
    cni.network("10.conflist", "pods", "main", "slow")
    cni.shell("slow", "ADD", f"touch {cni.folder}/begun; sleep 1000")

    async def work(network: Network) -> None:
        task = asyncio.create_task(network.attach(POD))
        await asyncio.to_thread(until, (cni.folder / "begun").exists, "the slow plugin")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await network.detach(POD)

    cni.run(work)
    assert cni.order()[:4] == ["ADD main", "ADD slow", "DEL slow", "DEL main"]
    assert cni.cached() == []
