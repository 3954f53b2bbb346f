"""What LXC does only by hooks: OCI hooks, sysctls, device nodes, the NIS domain, and a last
look at the OOM killer.

LXC's hooks in the order in which they run, and what each is used for:

- ``start-host``: on the host, once the container is set up: mounts with shared propagation,
  OCI prestart and createRuntime;
- ``pre-mount``: in the container's namespaces with the host's files: sysctls, since LXC
  itself would write them when /proc/sys is read-only already, the domain name among them;
- ``mount``: the same, with everything mounted: OCI createContainer;
- ``autodev``: with /dev made: device nodes of linux.devices;
- ``start``: in the container: OCI startContainer;
- ``stop``: on the host, while the cgroup still exists: whether the OOM killer was there.

Those in the container's namespaces get the environment that LXC gives to the container: where
there is one, :func:`isula_edge.runtime.lxc_user.carries_environment` keeps it empty.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime import hooks
from isula_edge.runtime.lxc_config import root_ids
from isula_edge.runtime.lxc_mounts import BIND_FLAGS, clean, inside, is_shared, mount_entry
from isula_edge.snapshot.mapped import let_in
from isula_edge.sys import atomic, paths, process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isula_edge.cgroup import Host
    from isula_edge.runtime.base import Bundle

__all__ = ["give", "lines", "problem"]

_BEFORE = ("prestart", "createRuntime")
START = "isula-start"
"""The script of OCI startContainer hooks inside a container."""
_KINDS = {"c": "c", "u": "c", "b": "b", "p": "p"}


def lines(bundle: Bundle, cgroups: Host) -> str:
    """Configuration lines for all hooks; their scripts are written into the run directory."""
    found = []
    for name, body in (
        ("start-host", _before(bundle)),
        ("pre-mount", _sysctls(bundle)),
        ("mount", _inside(bundle)),
        ("autodev", _devices(bundle)),
        ("stop", _memory(bundle, cgroups)),
    ):
        text = "\n".join(body)
        if text:
            path = f"{bundle.run_dir}/hook-{name}"
            head = f"#!/bin/sh\nexec 2>>{shlex.quote(_log(bundle))}\n"
            script = f"{head}{text}\n".encode("utf-8", "surrogateescape")
            atomic.write(path, script, 0o700, durable=False)
            give(bundle, path)
            # by the shell, since /run may be mounted noexec
            found.append(f"lxc.hook.{name} = /bin/sh {shlex.quote(path)}\n")
    text = "\n".join(_start(bundle))
    if text:
        path = f"{bundle.dir}/hook-start"
        script = f"#!/bin/sh\n{text}\n".encode("utf-8", "surrogateescape")
        atomic.write(path, script, 0o755, durable=False)
        give(bundle, path, bundle.dir)
        where = inside(bundle.spec, START)
        found.append(mount_entry(path, where, ("bind", "ro", "create=file")))
        found.append(f"lxc.hook.start = {where}\n")
    return "".join(found)


def give(bundle: Bundle, *paths: str) -> None:
    """Root of the container's user namespace may use what lies at ``paths``."""
    root = root_ids(bundle.spec)
    if root is not None:
        with open(_log(bundle), "ab"):
            pass
        for path in (*paths, _log(bundle)):
            if os.path.isdir(path):
                let_in(path, root[1])
            else:
                os.chown(path, *root)


def problem(bundle: Bundle) -> str:
    """The last words of a hook that failed, or ''."""
    with (
        contextlib.suppress(OSError),
        open(_log(bundle), encoding="utf-8", errors="replace") as file,
    ):
        found = file.read(1 << 16).split("\n")
        return next((line for line in reversed(found) if line), "")
    return ""


def _log(bundle: Bundle) -> str:
    return f"{bundle.run_dir}/hooks.err"


def _run(listed: Iterable[dict[str, Any]]) -> Iterator[str]:
    for hook in listed:
        command, name = shlex.join(hooks.command(hook)), shlex.quote(hook["path"])
        yield f'printf %s "$state" | {command}'
        late = f"was killed: its time is {hooks.seconds(hook)} s"
        yield f'code=$?; how="failed with $code"; [ $code != 137 ] || how="{late}"'
        yield f'[ $code = 0 ] || {{ echo hook {name} "$how" >&2; exit $code; }}'


def _before(bundle: Bundle) -> Iterator[str]:
    shared = [mount for mount in bundle.spec.get("mounts") or () if is_shared(mount)]
    if shared:
        words = process.python_command("isula_edge.helper.lxc_shared")
        tail = [word for mount in shared for word in _shared_words(mount)]
        yield f'{shlex.join(words)} "$LXC_PID" {shlex.join(tail)} || exit 1'
    listed = hooks.listed(bundle, *_BEFORE)
    if listed:
        # outside of strings there is no such text, since they have their quotes escaped
        before, _, after = hooks.state(bundle, "created", "PID").partition('"pid": PID')
        before = shlex.quote(f'{before}"pid": ')
        yield f'state={before}"${{LXC_PID:-0}}"{shlex.quote(after)}'
        yield from _run(listed)


def _shared_words(mount: dict[str, Any]) -> tuple[str, str, str]:
    flags = [option for option in mount["options"] if option in ("ro", *BIND_FLAGS)]
    return mount["source"], clean(mount["destination"]), ",".join(flags)


def _inside(bundle: Bundle) -> Iterator[str]:
    listed = hooks.listed(bundle, "createContainer")
    if listed:
        yield f"state={shlex.quote(hooks.state(bundle, 'created', '1'))}"
        yield from _run(listed)


def _start(bundle: Bundle) -> Iterator[str]:
    """With the shell of the container: what is executed is found there."""
    state = shlex.quote(hooks.state(bundle, "created", "1"))
    for hook in hooks.listed(bundle, "startContainer"):
        words = [hook["path"], *list(hook.get("args") or ())[1:]]
        pairs = [pair.partition("=")[::2] for pair in hooks.variables(hook)]
        given = "".join(f"{_name(hook, name)}={shlex.quote(value)} " for name, value in pairs)
        yield f"printf %s {state} | {given}{shlex.join(words)} || exit 1"


def _name(hook: dict[str, Any], name: str) -> str:
    """A name that the shell assigns to, since what else there is in the container is unknown."""
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        raise errors.Unimplemented(
            f"runtime lxc cannot give a variable {name} to startContainer hook {hook['path']}",
            kind="hook",
            ref=hook["path"],
            hint="use --runtime runc",
        )
    return name


def _sysctls(bundle: Bundle) -> Iterator[str]:
    table = dict((bundle.spec.get("linux") or {}).get("sysctl") or {})
    if bundle.spec.get("domainname"):
        table["kernel.domainname"] = bundle.spec["domainname"]
    for key, value in table.items():
        file = shlex.quote("/proc/sys/" + key.replace(".", "/"))
        text = shlex.quote(str(value))
        sorry = shlex.quote(f"sysctl {key}={value} is refused by the kernel")
        yield f"printf %s {text} 2>/dev/null >{file} || {{ echo {sorry} >&2; exit 1; }}"


def _devices(bundle: Bundle) -> Iterator[str]:
    found = (bundle.spec.get("linux") or {}).get("devices") or ()
    if not found:
        return
    yield "umask 0"
    yield (
        'node() { rm -f "$1"; if [ "$2" = p ]; then mknod -m "$5" "$1" p; '
        'else mknod -m "$5" "$1" "$2" "$3" "$4"; fi && '
        '{ [ "$6:$7" = 0:0 ] || chown "$6:$7" "$1"; } || exit 1; }'
    )
    for device in found:
        path = clean(device["path"])
        if path.startswith("/dev/"):
            # a tmpfs of LXC's that holds nothing of the image's
            yield f'mkdir -p -m 755 "$LXC_ROOTFS_MOUNT"{shlex.quote(os.path.dirname(path))}'
        else:
            root = bundle.spec["root"]["path"]
            path = paths.ensure_target(root, path, directory=False)[len(root) :]
        words = [
            _KINDS[device["type"]],
            *(str(device.get(key, 0)) for key in ("major", "minor")),
            f"{device.get('fileMode', 0o666):o}",
            *(str(device.get(key) or 0) for key in ("uid", "gid")),
        ]
        yield f'node "$LXC_ROOTFS_MOUNT"{shlex.quote(path)} {" ".join(words)}'


def _memory(bundle: Bundle, cgroups: Host) -> Iterator[str]:
    """For a container with a limit; LXC removes the cgroup before anybody else could look."""
    linux = bundle.spec.get("linux") or {}
    group = (linux.get("cgroupsPath") or bundle.cgroup).strip("/")
    files = shlex.join(cgroups.oom_files(group))
    if files and ((linux.get("resources") or {}).get("memory") or {}).get("limit"):
        yield f"cat {files} >{shlex.quote(bundle.run_dir)}/oom 2>/dev/null; exit 0"
