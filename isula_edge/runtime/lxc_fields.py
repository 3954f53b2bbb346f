"""Which fields of the OCI runtime-spec (1.2, and 1.3's) the lxc driver honours.

A document comes from the engine's own options and from what others put into it: hook-spec
files, CDI, NRI.  :func:`check` refuses whatever would be without effect, so that nothing is
silently ignored.  The runtime-spec lets a runtime ignore what it does not know; this driver
is no runtime for others, and refuses that too.

:data:`TABLE` is the one list: docs/runtimes.md shows it, and a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.runtime import lxc_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["TABLE", "check"]

_HOOK = "path:text args:texts env:texts timeout:number"
_MAP = "containerID:number hostID:number size:number"
_RATE = "major:number minor:number rate:number"

# group of fields -> their names and types; "-" before a name is what is refused
_GROUPS = {
    "": "ociVersion:text hostname:text domainname:text annotations:map"
    " -solaris:any -windows:any -vm:any -zos:any -freebsd:any",
    "root": "path:text readonly:flag",
    "mounts[]": "destination:text source:text type:text options:texts",
    "mounts[].uidMappings[]": "-containerID:number -hostID:number -size:number",
    "mounts[].gidMappings[]": "-containerID:number -hostID:number -size:number",
    "process": "terminal:flag args:texts env:texts cwd:text -commandLine:text"
    " apparmorProfile:text selinuxLabel:text oomScoreAdj:number noNewPrivileges:flag",
    "process.consoleSize": "height:number width:number",
    "process.user": "uid:number gid:number umask:number additionalGids:numbers -username:text",
    "process.capabilities": "bounding:texts effective:texts permitted:texts inheritable:texts"
    " ambient:texts",
    "process.rlimits[]": "type:text soft:number hard:number",
    "process.scheduler": "policy:text nice:number priority:number flags:texts runtime:number"
    " deadline:number period:number",
    "process.ioPriority": "class:text priority:number",
    "process.execCPUAffinity": "-initial:text -final:text",
    **{
        f"hooks.{kind}[]": _HOOK
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    },
    "hooks.startContainer[]": _HOOK.replace("timeout", "-timeout"),
    "linux": "cgroupsPath:text rootfsPropagation:text maskedPaths:texts readonlyPaths:texts"
    " sysctl:map -mountLabel:text",
    "linux.namespaces[]": "type:text path:text",
    "linux.uidMappings[]": _MAP,
    "linux.gidMappings[]": _MAP,
    "linux.timeOffsets.*": "secs:number nanosecs:number",
    "linux.devices[]": "type:text path:text major:number minor:number fileMode:number uid:number"
    " gid:number",
    "linux.netDevices.*": "-name:text",
    "linux.personality": "domain:text -flags:texts",
    "linux.intelRdt": "-closID:text -schemata:texts -l3CacheSchema:text -memBwSchema:text"
    " -enableCMT:flag -enableMBM:flag -enableMonitoring:flag",
    "linux.memoryPolicy": "-mode:text -nodes:text -flags:texts",
    "linux.seccomp": "defaultAction:text defaultErrnoRet:number architectures:texts flags:texts"
    " -listenerPath:text -listenerMetadata:text",
    "linux.seccomp.syscalls[]": "names:texts action:text errnoRet:number",
    "linux.seccomp.syscalls[].args[]": "index:number value:number valueTwo:number op:text",
    "linux.resources": "unified:map",
    "linux.resources.devices[]": "allow:flag type:text major:number minor:number access:text",
    "linux.resources.memory": "limit:number reservation:number swap:number kernel:number"
    " kernelTCP:number swappiness:number disableOOMKiller:flag -useHierarchy:flag"
    " checkBeforeUpdate:flag",
    "linux.resources.cpu": "shares:number quota:number burst:number period:number"
    " realtimeRuntime:number realtimePeriod:number cpus:text mems:text idle:number",
    "linux.resources.pids": "limit:number",
    "linux.resources.blockIO": "weight:number leafWeight:number",
    "linux.resources.blockIO.weightDevice[]": "major:number minor:number weight:number"
    " leafWeight:number",
    "linux.resources.blockIO.throttleReadBpsDevice[]": _RATE,
    "linux.resources.blockIO.throttleWriteBpsDevice[]": _RATE,
    "linux.resources.blockIO.throttleReadIOPSDevice[]": _RATE,
    "linux.resources.blockIO.throttleWriteIOPSDevice[]": _RATE,
    "linux.resources.hugepageLimits[]": "pageSize:text limit:number",
    "linux.resources.network": "classID:number",
    "linux.resources.network.priorities[]": "name:text priority:number",
    "linux.resources.rdma.*": "hcaHandles:number hcaObjects:number",
}


def _table() -> Iterator[tuple[str, tuple[bool, str]]]:
    for group, words in _GROUPS.items():
        for word in words.split():
            name, _, kind = word.lstrip("-").partition(":")
            yield f"{group}.{name}".lstrip("."), (not word.startswith("-"), kind)


TABLE = dict(_table())
"""Field (``[]`` an entry of a list, ``*`` any key) -> whether it is honoured, and its type."""


def _inner() -> set[str]:
    found = {""}
    for path in TABLE:
        parts = path.split(".")
        for count in range(1, len(parts)):
            above = ".".join(parts[:count])
            found |= {above, above.removesuffix("[]")}
    return found


_INNER = _inner()


def check(spec: Mapping[str, Any], version: str) -> None:
    """Raises an error that names the first field of ``spec`` that would be without effect.

    ``version`` is the cgroup layout.  Unimplemented: the field or its value is of the
    runtime-spec, and not for this driver; InvalidArgument: it is not of the runtime-spec.
    """
    for place, path, value in _leaves(spec, "", ""):
        honoured, kind = TABLE[path]
        if not honoured:
            if value:
                raise lxc_values.unserved(place)
            continue
        if not _KINDS[kind](value):
            raise lxc_values.bad(place, f"{value!r:.80} is no {kind}")
        for text in _texts(value):
            lxc_values.check_text(place, text)
    lxc_values.check(spec, version)


def _leaves(value: Any, path: str, place: str) -> Iterator[tuple[str, str, Any]]:
    """Every field that is set: where it is, its name in the table, its value."""
    if value is None:
        return
    if path in TABLE:
        yield place, path, value
    elif path not in _INNER:
        raise errors.Unimplemented(
            f"runtime lxc does not know {place}",
            kind="spec",
            ref=place,
            hint="remove it, or use --runtime runc",
        )
    elif f"{path}[]" in _INNER:
        if not isinstance(value, list):
            raise lxc_values.bad(place, "it is no list")
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[]", f"{place}[{number}]")
    elif not isinstance(value, dict):
        raise lxc_values.bad(place or "config.json", "it is no object")
    else:
        any_key = f"{path}.*" in _INNER
        for key, item in value.items():
            name = "*" if any_key else key
            yield from _leaves(item, f"{path}.{name}".lstrip("."), f"{place}.{key}".lstrip("."))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for text in pair)
    elif isinstance(value, list):
        yield from (text for text in value if isinstance(text, str))


def _is_number(value: Any) -> bool:
    return type(value) is int


_KINDS: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "number": _is_number,
    "numbers": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "texts": lambda value: (
        isinstance(value, list) and all(isinstance(text, str) for text in value)
    ),
    "map": lambda value: (
        isinstance(value, dict) and all(isinstance(text, str) for text in _texts(value))
    ),
}
