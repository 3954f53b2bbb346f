"""Seccomp filters: the default one, a user's own (Docker's JSON), and LXC's text of either.

A filter is the ``linux.seccomp`` object of the OCI runtime-spec.
"""

from __future__ import annotations

import errno
import json
import os
import re
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile.profile import load, shared_seccomp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isula_edge.profile.profile import Profile

__all__ = ["default_filter", "from_json", "to_lxc"]

_ACTIONS = {
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_KILL": "kill",
    "SCMP_ACT_KILL_THREAD": "kill",
    "SCMP_ACT_KILL_PROCESS": "kill",
    "SCMP_ACT_TRAP": "trap",
}
_OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)  # fmt: skip
# the one is of use to programs with threads, the other turns a safeguard of the kernel off
_NEEDLESS_FLAGS = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")
_MAX_ERRNO = 4095
# the words of the runtime-spec (1.2, config-linux.md)
_EVERY_ACTION = (
    "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
)  # fmt: skip
_ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 "
        "PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
_FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)  # fmt: skip
_NAME = re.compile("[A-Za-z0-9_]{1,100}", re.ASCII)


def default_filter(capabilities: Iterable[str], profile: Profile | None = None) -> dict[str, Any]:
    """The default filter for a container with ``capabilities`` (``CAP_…`` names)."""
    machine = profile or load()
    data, held = shared_seccomp(), set(capabilities)
    allowed = {name for group in data["allow"].values() for name in group.split()}
    allowed.update(machine.seccomp_allow)
    refused = set(data["refuse"]["names"].split())
    rules: list[dict[str, Any]] = []
    for capability, names in data["capability"].items():
        (allowed if capability in held else refused).update(names.split())
    for rule in data["rule"]:
        if rule.get("unless") in held or rule.get("when", "") not in ("", *held):
            continue
        rules += _rules(rule)
    special = {name for rule in rules for name in rule["names"]}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": getattr(errno, data["unknown"]),
        "architectures": list(machine.seccomp_architectures),
        "syscalls": [
            {"names": sorted(allowed - special), "action": "SCMP_ACT_ALLOW"},
            _errno(sorted(refused - allowed - special), errno.EPERM),
            *rules,
        ],
    }


def _errno(names: list[str], number: int) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number}


def _rules(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries for one ``[[rule]]`` of seccomp.toml, one per alternative of its argument."""
    names, action = rule["names"].split(), rule["action"]
    if action == "allow":
        base: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    else:
        base = _errno(names, getattr(errno, action))
    index = rule.get("flags", 0)
    arguments = []
    if "none_of" in rule:
        arguments.append(_masked(index, rule["none_of"], 0))
    arguments += [_masked(index, flag, flag) for flag in rule.get("any_of", ())]
    equals = rule.get("equals", ())
    arguments += [{"index": index, "value": value, "op": "SCMP_CMP_EQ"} for value in equals]
    found = [{**base, "args": [argument]} for argument in arguments] or [base]
    if equals:
        # libseccomp compares for equality first, so these are all the others
        others = {"index": index, "value": min(equals), "op": "SCMP_CMP_GT"}
        found.append({**_errno(names, errno.EPERM), "args": [others]})
    return found


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def from_json(
    text: str, capabilities: Iterable[str], profile: Profile | None = None
) -> dict[str, Any]:
    """The filter of a profile as Docker and iSulad write it.

    ``archMap`` and the conditions ``includes``/``excludes`` are resolved for this machine.
    Raises InvalidArgument saying what is wrong with it.
    """
    machine = profile or load()
    held = set(capabilities)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("defaultAction"), str):
        raise _bad("it has no defaultAction")
    found: dict[str, Any] = {"defaultAction": _known(data["defaultAction"], _EVERY_ACTION, "")}
    if data.get("defaultErrnoRet") is not None:
        found["defaultErrnoRet"] = _number(data, "defaultErrnoRet", "", _MAX_ERRNO)
    architectures = _words(data, "architectures") or _architectures(data, machine)
    if architectures:
        found["architectures"] = [_known(name, _ARCHITECTURES, "") for name in architectures]
    flags = _words(data, "flags")
    if flags:
        found["flags"] = [_known(name, _FLAGS, "") for name in flags]
    for key in ("listenerPath", "listenerMetadata"):
        if data.get(key) not in (None, ""):
            found[key] = _text(data, key)
    syscalls = _list(data, "syscalls")
    words = set(machine.seccomp_words)
    found["syscalls"] = [_entry(item) for item in syscalls if _applies(item, held, words)]
    return found


def _bad(text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"invalid seccomp profile: {text}", kind="flag", ref="security-opt"
    )


def _known(word: str, known: Iterable[str], place: str) -> str:
    if word not in known:
        raise _bad(f"{place}unknown {word[:100]!r}; there are {', '.join(known)}")
    return word


def _text(table: Mapping[str, Any], key: str) -> str:
    found = table[key]
    if not isinstance(found, str) or "\0" in found:
        raise _bad(f"{key} must be a string")
    return found


def _list(table: Mapping[str, Any], key: str, place: str = "") -> list[Any]:
    found = table.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _bad(f"{place}{key} must be a list")
    return found


def _words(table: Mapping[str, Any], key: str, place: str = "") -> list[str]:
    found = _list(table, key, place)
    if not all(isinstance(word, str) for word in found):
        raise _bad(f"{place}{key} must be a list of words")
    return found


def _object(table: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    found = table.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _bad(f"{place}{key} must be an object")
    return found


def _number(table: Mapping[str, Any], key: str, place: str, high: int) -> int:
    found = table.get(key)
    if type(found) is not int or not 0 <= found <= high:
        raise _bad(f"{place}{key} must be a number from 0 to {high}")
    return found


def _architectures(data: Mapping[str, Any], machine: Profile) -> list[str]:
    """What ``archMap`` says of this machine; nothing without one."""
    native = machine.seccomp_architectures[0]
    table = _list(data, "archMap")
    for item in table:
        if not isinstance(item, dict):
            raise _bad("an entry of archMap is no object")
        if item.get("architecture") == native:
            return [native, *_words(item, "subArchitectures", "archMap: ")]
    return [native] if table else []


def _names(item: Mapping[str, Any]) -> list[str]:
    names = item.get("names") or ([item["name"]] if item.get("name") else [])
    if not isinstance(names, list) or not names or not all(isinstance(x, str) for x in names):
        raise _bad("an entry of syscalls has no names")
    for name in names:
        if not _NAME.fullmatch(name):
            raise _bad(f"{name[:100]!r} is no name of a system call")
    return names


def _applies(item: Any, held: set[str], words: set[str]) -> bool:
    if not isinstance(item, dict):
        raise _bad("an entry of syscalls is no object")
    place = f"{_names(item)[0]}: "
    includes, excludes = (_object(item, key, place) for key in ("includes", "excludes"))
    arches, caps, kernel = _conditions(includes, f"{place}includes.")
    if (arches and not words & arches) or not caps <= held or kernel is False:
        return False
    arches, caps, kernel = _conditions(excludes, f"{place}excludes.")
    return not (words & arches or caps & held or kernel)


def _conditions(table: Mapping[str, Any], place: str) -> tuple[set[str], set[str], bool | None]:
    """Architectures, capabilities, and whether the kernel is new enough (None: not asked)."""
    arches, caps = (set(_words(table, key, place)) for key in ("arches", "caps"))
    wanted = table.get("minKernel")
    if wanted in (None, ""):
        return arches, caps, None
    if not isinstance(wanted, str) or not _release(wanted):
        raise _bad(f"{place}minKernel must be a version such as 4.8")
    # a condition of the profile's author, who means the release and nothing else
    return arches, caps, _release(os.uname().release) >= _release(wanted)


def _release(text: str) -> tuple[int, ...]:
    found = re.match(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", text)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def _entry(item: Mapping[str, Any]) -> dict[str, Any]:
    names, action = _names(item), item.get("action")
    if not isinstance(action, str):
        raise _bad(f"{names[0]} has no action")
    _known(action, _EVERY_ACTION, f"{names[0]}: ")
    entry: dict[str, Any] = {"names": names, "action": action}
    if item.get("errnoRet") is not None:
        entry["errnoRet"] = _number(item, "errnoRet", f"{names[0]}: ", _MAX_ERRNO)
    arguments = [_checked(item, names[0]) for item in _list(item, "args", f"{names[0]}: ")]
    if arguments:
        entry["args"] = arguments
    return entry


def _checked(argument: Any, name: str) -> dict[str, Any]:
    if not isinstance(argument, dict) or argument.get("op") not in _OPERATORS:
        raise _bad(f"{name} has an argument with an unknown operator")
    place = f"{name}: args."
    found = {
        "index": _number(argument, "index", place, 5),
        "value": _number(argument, "value", place, 2**64 - 1),
    }
    if argument.get("valueTwo"):
        found["valueTwo"] = _number(argument, "valueTwo", place, 2**64 - 1)
    return {**found, "op": argument["op"]}


def to_lxc(found: Mapping[str, Any], profile: Profile | None = None) -> str:
    """The filter as liblxc reads it (format 2, one list for all architectures).

    Raises Unimplemented for what that format cannot say.
    """
    _check_sayable(found, profile or load())
    default = str(found["defaultAction"])
    if default in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG"):
        lines = ["2", "blacklist", "[all]"]
    else:
        lines = ["2", f"whitelist {_action(default, found.get('defaultErrnoRet'))}", "[all]"]
    for entry in found.get("syscalls") or ():
        action = _action(str(entry["action"]), entry.get("errnoRet"))
        if action == _action(default, found.get("defaultErrnoRet")):
            continue
        tail = "".join(f" {_argument(argument)}" for argument in entry.get("args") or ())
        lines += [f"{_word(name)} {action}{tail}" for name in entry["names"]]
    return "\n".join(lines) + "\n"


def _check_sayable(found: Mapping[str, Any], machine: Profile) -> None:
    # liblxc (4 to 6) reads sections of single architectures and applies them to all
    given = found.get("architectures") or machine.seccomp_architectures
    missing = [name for name in machine.seccomp_architectures[1:] if name not in given]
    if missing:
        raise errors.Unimplemented(
            f"runtime lxc cannot leave {', '.join(missing)} out of a seccomp profile",
            kind="spec",
            ref="linux.seccomp.architectures",
            hint="add them to its architectures, or use --runtime runc for this profile",
        )
    for flag in found.get("flags") or ():
        if flag not in _NEEDLESS_FLAGS:
            raise errors.Unimplemented(
                f"runtime lxc has no seccomp flag {flag}",
                kind="spec",
                ref="linux.seccomp.flags",
                hint="use --runtime runc for this profile",
            )


def _word(name: str) -> str:
    if not name.replace("_", "").isalnum():
        raise _bad(f"{name!r} is no name of a system call")
    return name


def _action(action: str, number: object) -> str:
    if action == "SCMP_ACT_ERRNO":
        return f"errno {int(number) if isinstance(number, int) else errno.EPERM}"
    if action == "SCMP_ACT_LOG":
        # liblxc has no word for it: what would be logged is let through
        return "allow"
    try:
        return _ACTIONS[action]
    except KeyError:
        raise errors.Unimplemented(
            f"runtime lxc has no seccomp action {action}",
            kind="spec",
            ref=action,
            hint="use --runtime runc for this profile",
        ) from None


def _argument(argument: Mapping[str, Any]) -> str:
    index, value, operator = int(argument["index"]), int(argument["value"]), argument["op"]
    if operator == "SCMP_CMP_MASKED_EQ":
        return f"[{index},{int(argument.get('valueTwo') or 0)},{operator},{value}]"
    return f"[{index},{value},{operator}]"
