"""This machine: probes are quick to ask, change nothing, and agree with a saved copy."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.kernel import State, _probe_calls
from isula_edge.kernel.recorder import Recorder
from tests.rig import children

if TYPE_CHECKING:
    from pathlib import Path


def _links() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))


def _self() -> tuple[object, ...]:
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "user", "net")]
    with open("/proc/self/status") as file:
        status = [line for line in file if line.startswith(("Cap", "NoNewPrivs", "Seccomp:"))]
    with open("/proc/self/mountinfo") as file:
        mounts = file.read().count("\n")
    descriptors = os.listdir("/proc/self/fd")
    return os.getcwd(), spaces, status, mounts, len(descriptors), threading.active_count()


def test_probes_change_nothing() -> None:
    kernel.probe().all()  # imports, and modules that the kernel loads
    before = _self(), _links()
    # what other tests have left may be there
    left = set(children(os.getpid()))
    kernel.probe().all()
    assert (_self(), _links()) == before
    assert set(children(os.getpid())) <= left


class Listening(kernel.Live):
    """This machine, with a note of what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def call(self, name: str) -> kernel.Answer | None:
        if name not in self._answers:
            self.names.append(name)
        return super().call(name)


def test_nothing_is_asked_before_it_is_wanted() -> None:
    source = Listening()
    features = kernel.probe(source)
    assert source.names == []
    assert features.usable("inotify")
    assert features.usable("inotify")
    assert source.names == ["syscalls.inotify_init1"]


def test_a_verdict_asks_for_nothing_optional() -> None:
    """Asking for a kind of link or a file system may load its module."""
    source = Listening()
    kernel.probe(source).verdict()
    optional = {"net.link_vxlan", "net.link_macvlan", "net.link_ipvlan", "net.link_vlan"}
    optional |= {"net.link_dummy", "mount.overlay_userns", "mount.overlayfs_old_name"}
    assert not optional & set(source.names)
    assert "net.link_veth" in source.names


def test_every_call_that_a_probe_asks_is_known() -> None:
    source = Listening()
    kernel.probe(source).all()
    # answered only by captures: asking would load the table, or mount
    captured = {"net.ipt_nat", "net.ip6t_nat", "mount.binfmt_misc"}
    assert set(source.names) - captured <= set(_probe_calls._ASK)


def test_this_machine_agrees_with_python() -> None:
    features = kernel.probe()
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        assert not features.usable("pidfd")
    else:
        assert features.usable("pidfd")
    try:
        os.close(os.memfd_create("x"))
    except OSError:
        assert not features.usable("memfd")
    else:
        assert features.usable("memfd")
    assert features.release() == os.uname().release
    for name in ("mnt-namespace", "uts-namespace", "inotify", "tmpfs"):
        assert features.get(name).state is State.PRESENT, name


def test_an_unknown_architecture_is_unknown_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_probe_calls, "_NR", {})
    assert kernel.probe().state("pidfd") is State.UNKNOWN
    assert _probe_calls.ask("syscalls.no_such_call") is None


@pytest.mark.parametrize(
    ("machine", "wide", "abi"),
    [
        ("x86_64", True, "x86_64"),
        ("x86_64", False, "i386"),
        ("i686", False, "i386"),
        ("aarch64", True, "generic"),
        ("aarch64", False, "arm"),
        ("armv7l", False, "arm"),
        ("riscv64", True, "generic"),
        ("mips64", True, ""),
    ],
)
def test_call_numbers_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, machine: str, wide: bool, abi: str
) -> None:
    uname = os.uname_result(("Linux", "n", "r", "v", machine))
    monkeypatch.setattr(os, "uname", lambda: uname)
    monkeypatch.setattr(sys, "maxsize", 2**63 - 1 if wide else 2**31 - 1)
    assert _probe_calls._abi() == abi


def test_a_saved_copy_says_the_same(tmp_path: Path) -> None:
    recorder = Recorder(kernel.Live())
    live = kernel.probe(recorder).to_json()
    root = str(tmp_path / "copy")
    recorder.save(root)
    saved = kernel.probe(kernel.Saved(root)).to_json()
    assert saved.pop("source") == root
    assert live.pop("source") == "live"
    assert saved == live


def test_only_the_standard_library_is_imported() -> None:
    code = (
        "import sys; import isula_edge.kernel, isula_edge.kernel.report;"
        "isula_edge.kernel.probe().all();"
        "print(*sorted({n.partition('.')[0] for n in sys.modules} - sys.stdlib_module_names))"
    )
    root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["__main__", "isula_edge"]


@pytest.mark.parametrize("name", sorted(_probe_calls._ASK))
def test_a_call_can_be_asked_in_any_process(name: str) -> None:
    """Also in this one: it answers, with an errno that Python knows, and changes nothing."""
    before = _self()
    answer = _probe_calls.ask(name)
    assert _self() == before
    if answer is not None and not answer.ok:
        assert getattr(errno, answer.errname) > 0
