"""No value of a user becomes anything else in what the lxc driver writes.

Each value that a user can set is given every nasty text.  What LXC, the C library and a
shell make of the files is compared with what was given: it is there as it was, or it was
refused by an error that shows it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isula_edge import errors
from isula_edge.cgroup import Host
from isula_edge.profile.seccomp import to_lxc
from isula_edge.runtime import lxc_config, lxc_hooks, lxc_user
from isula_edge.runtime.lxc import Lxc
from isula_edge.runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.runtime.conftest import MakeBundle

EVIL = "lxc.hook.pre-start = /evil"
NASTY = {
    "line feed": f"a\n{EVIL}",
    "carriage return": f"a\r{EVIL}",
    "both": f"a\r\n{EVIL}\r\n",
    "NUL": f"a\0{EVIL}",
    "comment": "# a # b",
    "equals": "a = b = c",
    "blanks around": "  a b  ",
    "tab": "\ta\tb\t",
    "double quotes": '"a"',
    "one double quote": '"',
    "single quotes": "'a' 'b'",
    "one single quote": "it's",
    "backslash": "a\\b\\",
    "octal": "a\\040b\\012c",
    "accents": "é ü ß",
    "emoji": "\U0001f600",
    "no UTF-8": "a\udcff\udc80b",
    "percent": "%s%n %d",
    "command": "$(touch /evil) `id` ${HOME} $HOME",
    "shell": "; touch /evil & | > < * ? [a] ~ !",
    "option": "-rf",
    "include": "lxc.include = /etc/passwd",
    "vertical tab": "a\vb\fc\x1b[31m",
    "line separator": "a\u2028b\x85c",
    "long": "x" * 3000,
    "very long": "y" * 200_000,
}
EMPTY = "empty"


class Mntent(ctypes.Structure):
    """struct mntent of getmntent(3)."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("source", "target", "kind", "options")),
        ("freq", ctypes.c_int),
        ("pass", ctypes.c_int),
    )


def as_lxc_reads(text: str) -> list[tuple[str, str]]:
    """Keys and values of a configuration file, as liblxc's parser takes them apart."""
    found = []
    for line in text.replace("\r", "\n").replace("\0", "\n").split("\n"):
        line = line.lstrip(" \t")
        if not line or line.startswith("#") or not line.startswith("lxc."):
            assert not line.strip(), f"LXC ignores {line!r}"
            continue
        key, equals, value = line.partition("=")
        assert equals
        # isspace(3)
        value = value.strip(" \t\v\f")
        if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
            value = value[1:-1]
        found.append((key.strip(" \t"), value))
    return found


def as_libc_reads(values: list[str], folder: Path) -> list[tuple[str, str, str, str]]:
    """The fields of mount entries, by the very function that LXC uses, with its buffer."""
    path = folder / "fstab"
    path.write_bytes("".join(f"{value}\n" for value in values).encode("utf-8", "surrogateescape"))
    libc = ctypes.CDLL(None)
    libc.setmntent.restype = ctypes.c_void_p
    libc.getmntent_r.restype = ctypes.POINTER(Mntent)
    libc.getmntent_r.argtypes = (ctypes.c_void_p, ctypes.POINTER(Mntent), ctypes.c_char_p,
                                 ctypes.c_int)  # fmt: skip
    libc.endmntent.argtypes = (ctypes.c_void_p,)
    stream = libc.setmntent(os.fsencode(path), b"r")
    buffer, entry, found = ctypes.create_string_buffer(4096), Mntent(), []
    while libc.getmntent_r(stream, ctypes.byref(entry), buffer, 4096):
        found.append(
            tuple(
                os.fsdecode(getattr(entry, name))
                for name in ("source", "target", "kind", "options")
            )
        )
    libc.endmntent(stream)
    return found  # type: ignore[return-value]


def shell_words(text: str) -> list[str]:
    """The words that /bin/sh makes of a command."""
    script = f"printf '%s\\0' {text}\n".encode("utf-8", "surrogateescape")
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True, env={})
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


BASE: dict[str, Any] = {
    "root": {"path": "/r"},
    "process": {"args": ["x"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "uts"}]},
}


def merged(*changes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: dict(value) for key, value in BASE.items()}
    for change in changes:
        for key, value in change.items():
            found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


class Written:
    """What the driver writes for a document."""

    def __init__(self, bundle: Any, folder: Path) -> None:
        config = lxc_config.build(
            bundle, version="2", monitor_cgroup="m", seccomp_path=f"{bundle.run_dir}/seccomp"
        )
        cgroups = Host("2", {"": str(folder)})
        self.text = config.text + lxc_hooks.lines(bundle, cgroups)
        self.pairs = as_lxc_reads(self.text)
        self.mounts = as_libc_reads(self.values("lxc.mount.entry"), folder)
        self.bundle, self.seccomp = bundle, config.seccomp
        self.folder = folder

    def values(self, key: str) -> list[str]:
        return [value for name, value in self.pairs if name == key]

    def hook(self, name: str) -> str:
        return os.fsdecode(Path(f"{self.bundle.run_dir}/hook-{name}").read_bytes())

    def launcher(self) -> list[str]:
        driver = object.__new__(Lxc)
        driver.program = "/usr/bin/lxc-start"
        text = os.fsdecode(driver._launcher(self.bundle, ("/bin/reset",)))
        start = text.index("exec /bin/reset") + len("exec ")
        return shell_words(text[start : text.rindex(" <&3 3<&- ) &")])

    def environment(self) -> list[str]:
        """What the container gets, from LXC or from the program before it."""
        if not lxc_user.carries_environment(self.bundle.spec):
            return self.values("lxc.environment")
        return lxc_user._pairs(lxc_user.variables(self.bundle.spec["process"]))


def value_of(key: str) -> Callable[[Written], str]:
    return lambda written: written.values(key)[-1]


def mounted(target: str, field: int) -> Callable[[Written], str]:
    """A field of the only mount, which must be there: at ``target``, or with another field."""

    def read(written: Written) -> str:
        (entry,) = written.mounts
        assert field == 1 or entry[1] == target
        return entry[field]

    return read


def stated(written: Written) -> str:
    """What a hook is told of an annotation."""
    text = written.hook("mount")
    (word,) = shell_words(text[text.index("state=") : text.index("\nprintf %s ")])
    found: str = json.loads(word.removeprefix("state="))["annotations"]["key"]
    return found


def hook_words(written: Written) -> list[str]:
    _, _, command = written.hook("mount").partition('printf %s "$state" | ')
    return shell_words(command.rpartition("\ncode=$?")[0])


def sysctl_words(written: Written) -> str:
    text = written.hook("pre-mount")
    command = text[text.index("printf %s ") + len("printf %s ") : text.index(" 2>/dev/null")]
    (word,) = shell_words(command)
    return word


def unified(written: Written) -> str:
    (found,) = (key for key, _ in written.pairs if key.startswith("lxc.cgroup2.memory."))
    return found.removeprefix("lxc.cgroup2.")


def node_words(written: Written) -> list[str]:
    text = written.hook("autodev")
    return shell_words(text[text.rindex("\nnode ") + len("\nnode ") :].rstrip("\n"))


def hook(**fields: Any) -> dict[str, Any]:
    return {"hooks": {"createContainer": [{"path": "/bin/true", **fields}]}}


def mount(**fields: Any) -> dict[str, Any]:
    return {"mounts": [{"destination": "/t", "type": "tmpfs", "source": "x", **fields}]}


def resources(**limits: Any) -> dict[str, Any]:
    return {"linux": {"namespaces": [{"type": "uts"}], "resources": limits}}


def linux(**fields: Any) -> dict[str, Any]:
    return {"linux": {"namespaces": [{"type": "uts"}], **fields}}


DEVICE = {"type": "c", "major": 1, "minor": 3}
PREFIX = "/p/"
"""Before a path that is given; the text is a component, or several, of it."""

# what is set -> the document with a text, and where the container's view of it is written
FIELDS: dict[str, tuple[Callable[[str], dict[str, Any]], Callable[[Written], Any], str]] = {
    "hostname": (lambda t: {"hostname": t}, value_of("lxc.uts.name"), ""),
    "domainname": (lambda t: {"domainname": t}, sysctl_words, ""),
    "env value": (lambda t: {"process": {"env": [f"A={t}"]}},
                  lambda w: w.environment()[0].removeprefix("A="), ""),
    "env name": (lambda t: {"process": {"env": [f"{t}x=1"]}},
                 lambda w: w.environment()[0].rpartition("=")[0].removesuffix("x"), ""),
    "first arg": (lambda t: {"process": {"args": [t]}}, lambda w: w.launcher()[-1], ""),
    "arg": (lambda t: {"process": {"args": ["x", t, "y"]}}, lambda w: w.launcher()[-2], ""),
    "cwd": (lambda t: {"process": {"cwd": t}}, value_of("lxc.init.cwd"), PREFIX),
    "root": (lambda t: {"root": {"path": t}},
             lambda w: value_of("lxc.rootfs.path")(w).removeprefix("dir:"), PREFIX),
    "capability": (lambda t: {"process": {"capabilities": {"bounding": [t]}}},
                   value_of("lxc.cap.keep"), ""),
    "rlimit": (lambda t: {"process": {"rlimits": [{"type": t, "soft": 1, "hard": 1}]}},
               lambda w: w.text, "RLIMIT_"),
    "AppArmor profile": (lambda t: {"process": {"apparmorProfile": t}},
                         value_of("lxc.apparmor.profile"), ""),
    "SELinux label": (lambda t: {"process": {"selinuxLabel": t}},
                      value_of("lxc.selinux.context"), ""),
    "mount source": (lambda t: mount(source=t), mounted("t", 0), ""),
    "mount source of a bind": (lambda t: mount(type="bind", source=t), mounted("t", 0), PREFIX),
    "mount destination": (lambda t: mount(destination=t),
                          lambda w: "/" + mounted("", 1)(w), PREFIX),
    "mount type": (lambda t: mount(type=t), mounted("t", 2), ""),
    "mount option": (lambda t: mount(options=["nosuid", f"mode={t}"]),
                     lambda w: mounted("t", 3)(w).removeprefix("nosuid,mode="), ""),
    "cgroup": (lambda t: linux(cgroupsPath=t),
               lambda w: "/" + value_of("lxc.cgroup.dir.container")(w), PREFIX),
    "namespace": (lambda t: linux(namespaces=[{"type": "uts"}, {"type": "ipc", "path": t}]),
                  value_of("lxc.namespace.share.ipc"), PREFIX),
    "sysctl value": (lambda t: linux(sysctl={"net.a": t}), sysctl_words, ""),
    "sysctl key": (lambda t: linux(sysctl={t: "1"}), lambda w: w.hook("pre-mount"), ""),
    "masked path": (lambda t: linux(maskedPaths=[t]),
                    lambda w: "/" + mounted("", 1)(w), PREFIX),
    "read-only path": (lambda t: linux(readonlyPaths=[t]),
                       lambda w: "/" + mounted("", 1)(w), PREFIX),
    "device": (lambda t: linux(devices=[{**DEVICE, "path": t}]),
               lambda w: node_words(w)[0], "/dev/p/"),
    "device rule": (lambda t: resources(devices=[{"allow": True, "type": "c", "access": t}]),
                    lambda w: w.text, ""),
    "cpus": (lambda t: resources(cpu={"cpus": t}), lambda w: w.text, ""),
    "unified key": (lambda t: resources(unified={t: "1"}), unified, "memory."),
    "unified value": (lambda t: resources(unified={"io.max": t}),
                      value_of("lxc.cgroup2.io.max"), ""),
    "page size": (lambda t: resources(hugepageLimits=[{"pageSize": t, "limit": 1}]),
                  lambda w: w.text, ""),
    "RDMA device": (lambda t: resources(rdma={t: {"hcaObjects": 1}}),
                    lambda w: value_of("lxc.cgroup2.rdma.max")(w).removesuffix(" hca_object=1"),
                    ""),
    "annotation": (lambda t: {"annotations": {"key": t}, **hook()}, stated, ""),
    "hook path": (lambda t: hook(path=t), lambda w: hook_words(w)[-1], PREFIX),
    "hook arg": (lambda t: hook(args=["x", t]), lambda w: hook_words(w)[-1], ""),
    "hook variable": (lambda t: hook(env=[f"A={t}"]),
                      lambda w: hook_words(w)[3].removeprefix("A="), ""),
    "personality": (lambda t: linux(personality={"domain": t}), value_of("lxc.arch"), ""),
    "clock": (lambda t: linux(namespaces=[{"type": "time"}], timeOffsets={t: {"secs": 1}}),
              lambda w: w.text, ""),
    "seccomp name": (
        lambda t: linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": [t], "action": "SCMP_ACT_ERRNO"}]}),
        lambda w: to_lxc(w.seccomp or {}).splitlines()[-1].removesuffix(" errno 1"), ""),
    "seccomp action": (
        lambda t: linux(seccomp={"defaultAction": t}),
        lambda w: to_lxc(w.seccomp or {}), ""),
}  # fmt: skip


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with AppArmor and SELinux, so that labels get as far as they can."""
    for name in ("apparmor_enabled", "selinux_enabled"):
        monkeypatch.setattr(f"isula_edge.sys.lsm.{name}", lambda: True)
    monkeypatch.setattr("isula_edge.runtime.lxc_config.apparmor_enabled", lambda: True)


@pytest.mark.parametrize("kind", NASTY)
@pytest.mark.parametrize("name", FIELDS)
def test_a_value_is_given_as_it_is_or_refused_by_name(
    make_bundle: MakeBundle, tmp_path: Path, name: str, kind: str
) -> None:
    build, read, prefix = FIELDS[name]
    text = prefix + NASTY[kind]
    refusal: errors.EngineError | None = None
    try:
        written = Written(make_bundle(merged(build(text))), tmp_path)
        seen = read(written)
    except (errors.InvalidArgument, errors.Unimplemented) as error:
        refusal = error
    if refusal is not None:
        said = f"{refusal} {refusal.ref}"
        assert any(word in said for word in named(name, text)), said
        return
    assert seen == text
    keys = {key for key, _ in written.pairs}
    assert not keys & {"lxc.hook.pre-start", "lxc.include"}


def named(name: str, text: str) -> list[str]:
    """Words of which an error about this value has one: what it is, or the value itself."""
    return [text[:40], repr(text)[:40], *NAMES.get(name, (name,))]


NAMES = {
    "env value": ("process.env",), "env name": ("process.env",),
    "first arg": ("process.args",), "arg": ("process.args",), "cwd": ("process.cwd", "cwd"),
    "root": ("root.path", "lxc.rootfs.path"), "rlimit": ("process.rlimits[0]",),
    "capability": ("process.capabilities",), "AppArmor profile": ("apparmor",),
    "SELinux label": ("selinux",), "mount source": ("mount",), "mount type": ("mount",),
    "mount source of a bind": ("mount",), "mount destination": ("mount",),
    "mount option": ("mount",), "cgroup": ("cgroup",), "namespace": ("namespace",),
    "sysctl value": ("linux.sysctl.net.a",), "sysctl key": ("linux.sysctl",),
    "masked path": ("linux.maskedPaths", "mount"),
    "read-only path": ("linux.readonlyPaths", "mount"), "device": ("linux.devices[0].path",),
    "device rule": ("resources.devices[0]",), "cpus": ("resources.cpu.cpus",),
    "unified key": ("resources.unified",), "unified value": ("unified.io.max", "io.max"),
    "page size": ("hugepageLimits[0]",), "RDMA device": ("rdma",), "annotation": ("annotations",),
    "hook path": ("hooks.createContainer[0].path",), "hook arg": ("hooks.createContainer[0].args",),
    "hook variable": ("hooks.createContainer[0].env",), "personality": ("personality",),
    "clock": ("timeOffsets",), "seccomp name": ("seccomp",), "seccomp action": ("seccomp",),
}  # fmt: skip


@pytest.mark.parametrize("kind", NASTY)
def test_name_and_log_of_a_container_are_words_of_the_supervisor(
    make_bundle: MakeBundle, kind: str
) -> None:
    text = NASTY[kind]
    bundle = make_bundle({}, name=text, log_path=f"/logs/{text}")
    argv = Supervisor("/usr/bin/conmon", None).argv(bundle, "/bin/sh")  # type: ignore[arg-type]
    assert argv[argv.index("-n") + 1] == text
    assert argv[argv.index("-l") + 1] == f"k8s-file:/logs/{text}"


def test_a_log_that_the_supervisor_would_write_elsewhere_is_refused(
    make_bundle: MakeBundle,
) -> None:
    bundle = make_bundle({}, log_path="/logs/a:b/0.log")
    with pytest.raises(errors.InvalidArgument, match=r"the log /logs/a:b/0\.log cannot"):
        Supervisor("/usr/bin/conmon", None).argv(bundle, "/bin/sh")  # type: ignore[arg-type]
