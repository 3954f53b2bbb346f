"""Plugins as processes: found, asked, misbehaving, killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from isula_edge import errors
from isula_edge.network.plugin import Call, PluginFailed, Plugins
from isula_edge.sys.process import Reaper, identify
from tests.fakes.cni import NETNS, RESULT
from tests.fakes.mutations import mutations
from tests.rig import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.fakes.cni import FakeCni

T = TypeVar("T")

ADD = Call("ADD", "id", NETNS, "eth0", (("A", "1"), ("B", "2")))
CONF = {"type": "main", "name": "net", "cniVersion": "1.0.0"}


def run(
    cni: FakeCni, work: Callable[[Plugins], Awaitable[T]], *, timeout_s: float = 60
) -> T:
    async def main() -> T:
        reaper = Reaper()
        reaper.install()
        return await work(Plugins([str(cni.folder / "none"), str(cni.bin)], reaper, timeout_s))

    return asyncio.run(main())


def add(cni: FakeCni, **more: Any) -> dict[str, Any]:
    return run(cni, lambda plugins: plugins.add({**CONF, **more}, ADD))


def test_what_a_plugin_is_given(cni: FakeCni) -> None:
    cni.plugin("main")
    assert add(cni, key="value") == {"cniVersion": "1.0.0", **RESULT}
    (call,) = cni.calls()
    assert call == {
        "plugin": "main",
        "command": "ADD",
        "id": "id",
        "netns": NETNS,
        "ifname": "eth0",
        "args": "A=1;B=2",
        "path": f"{cni.folder}/none:{cni.bin}",
        "conf": {**CONF, "key": "value"},
    }


def test_a_plugin_has_the_engines_environment(
    cni: FakeCni, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("CNI_COMMAND", "wrong")
    cni.plugin("main")
    cni.shell("main", "ADD", f"env >{cni.folder}/env")
    add(cni)
    environment = (cni.folder / "env").read_text().splitlines()
    assert "HTTPS_PROXY=http://proxy" in environment
    assert "CNI_COMMAND=ADD" in environment


def test_a_plugin_that_does_not_read_what_it_is_given(cni: FakeCni) -> None:
    path = cni.bin / "main"
    path.write_text("#!/bin/sh\nexec <&-\necho '{}'\n")
    path.chmod(0o755)
    assert add(cni, padding="x" * 300_000) == {"cniVersion": "1.0.0"}


def test_a_plugin_that_is_missing(cni: FakeCni) -> None:
    (cni.bin / "main").write_text("not executable")
    with pytest.raises(errors.FailedPrecondition, match=r'^Failed to find .+"main"') as caught:
        add(cni)
    assert str(cni.bin) in caught.value.message
    assert caught.value.hint


@pytest.mark.native  # under qemu-user execve(2) of what is no program succeeds
def test_a_plugin_that_is_no_program(cni: FakeCni) -> None:
    (cni.bin / "main").write_text("#!/no/such/interpreter\n")
    (cni.bin / "main").chmod(0o755)
    with pytest.raises(errors.FailedPrecondition, match="plugin main cannot be run"):
        add(cni)


def test_the_error_of_a_plugin(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.fail("main", "ADD", 7, "bad network")
    with pytest.raises(PluginFailed) as caught:
        add(cni)
    assert str(caught.value) == "plugin main failed (ADD): bad network; details"
    assert (caught.value.cni_code, caught.value.retryable) == (7, False)


def test_an_error_that_ends_by_itself_can_be_tried_again(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.fail("main", "ADD", 11)
    with pytest.raises(PluginFailed) as caught:
        add(cni)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("out", "err", "text"),
    [
        (b"", "", "exit status 3"),
        (b"", "panic:\n\tnil\x1b[0m map", "panic: nil [0m map"),
        (b"text\n", "", "text"),
        (b'{"msg": 1}', "stderr", "stderr"),
        (b'["x"]', "stderr", "stderr"),
        (b'{"code": "x", "msg": "a\\ud800"}', "", "a?"),
    ],
)
def test_errors_that_are_no_json(cni: FakeCni, out: bytes, err: str, text: str) -> None:
    cni.plugin("main")
    cni.answer("main", "ADD", out, 3, err)
    with pytest.raises(PluginFailed) as caught:
        add(cni)
    assert str(caught.value) == f"plugin main failed (ADD): {text}"
    assert caught.value.cni_code == -1


def test_a_plugin_that_is_killed(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.answer("main", "ADD", b"")
    cni.shell("main", "ADD", "kill -9 $$")
    with pytest.raises(PluginFailed, match=r"\(ADD\): signal 9"):
        add(cni)


def test_endless_output_is_cut(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.answer("main", "ADD", b"x" * (3 << 20), 1)
    with pytest.raises(PluginFailed) as caught:
        add(cni)
    assert len(caught.value.message) < 1100


NONSENSE = [b"", b"null", b"7", b'"x"', b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b"{}{}",
            b'{"cniVersion": []}', b'{"ips": [{"address": "10.0.0.1/33"}]}']  # fmt: skip


@pytest.mark.parametrize("out", NONSENSE)
def test_results_that_are_nonsense(cni: FakeCni, out: bytes) -> None:
    cni.plugin("main")
    cni.answer("main", "ADD", out)
    with pytest.raises(errors.Internal, match="plugin main gave no valid result"):
        add(cni)


def test_whatever_is_printed_there_is_a_result_or_an_error(cni: FakeCni) -> None:
    chance = random.Random(11)
    good = json.dumps({"cniVersion": "0.4.0", **RESULT}).encode()
    texts = [*NONSENSE, *mutations(chance, [good], 150)]
    cni.plugin("main")

    async def work(plugins: Plugins) -> int:
        refused = 0
        for text in texts:
            cni.answer("main", "ADD", text, chance.choice((0, 0, 1)), "" if len(text) % 2 else "e")
            try:
                result = await plugins.add(CONF, ADD)
            except errors.EngineError as error:
                refused += 1
                str(error).encode()
            else:
                assert result["cniVersion"] == "1.0.0"
                json.dumps(result)
        return refused

    assert run(cni, work) > len(NONSENSE)


def test_the_version_is_asked_once_for_each_program(cni: FakeCni) -> None:
    cni.plugin("main")

    async def ask(plugins: Plugins) -> list[tuple[str, ...]]:
        first = [await plugins.supported("main"), await plugins.supported("main")]
        cni.answer("main", "VERSION", {"supportedVersions": ["1.0.0", "0.4.0", 7]})
        path = cni.bin / "main"
        os.utime(path, ns=(1, 1))
        return [*first, await plugins.supported("main")]

    newest = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
    assert run(cni, ask) == [newest, newest, ("0.4.0", "1.0.0")]
    assert cni.order() == ["VERSION main"] * 2


@pytest.mark.parametrize("out", [b"", b"[]", b"{}", b'{"supportedVersions": 7}', b"[" * 100_000,
                                 b'{"supportedVersions": ["x"]}'])  # fmt: skip
def test_a_plugin_that_does_not_know_its_version(cni: FakeCni, out: bytes) -> None:
    cni.plugin("main")
    cni.answer("main", "VERSION", out)
    assert run(cni, lambda plugins: plugins.supported("main")) == ()


def ended(pid: int) -> bool:
    process = identify(pid)
    return process is None or not process.alive()


async def both_ended(cni: FakeCni) -> None:
    """Waits for the end of a plugin and its child, and for the signal that tells of it."""
    for pid in (cni.folder / "pids").read_text().split():
        await asyncio.to_thread(until, partial(ended, int(pid)), f"the end of {pid}")


HANG = "sleep 1000 & echo $$ $! >{folder}/pids.tmp; mv {folder}/pids.tmp {folder}/pids; wait"


def test_a_plugin_that_hangs_is_killed_with_its_children(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.shell("main", "ADD", HANG.format(folder=cni.folder))

    async def work(plugins: Plugins) -> None:
        with pytest.raises(errors.DeadlineExceeded, match="did not end within 1 s and was killed"):
            await plugins.add(CONF, ADD)
        await both_ended(cni)

    run(cni, work, timeout_s=1)


def test_a_plugin_of_a_caller_that_gave_up_is_killed(cni: FakeCni) -> None:
    cni.plugin("main")
    cni.shell("main", "ADD", HANG.format(folder=cni.folder))

    async def work(plugins: Plugins) -> None:
        task = asyncio.create_task(plugins.add(CONF, ADD))
        await asyncio.to_thread(until, (cni.folder / "pids").exists, "the plugin's start")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await both_ended(cni)

    run(cni, work)
