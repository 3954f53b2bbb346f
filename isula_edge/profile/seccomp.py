"""Seccomp filters: the default one, a user's own (Docker's JSON), and LXC's text of either.

A filter is the ``linux.seccomp`` object of the OCI runtime-spec.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.profile.profile import load, shared_seccomp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isula_edge.profile.profile import Profile

__all__ = ["default_filter", "from_json", "to_lxc"]

_NATIVE_WORDS = {"amd64": ("amd64", "x86", "x32"), "arm64": ("arm64", "arm")}
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
    arguments += [
        {"index": index, "value": value, "op": "SCMP_CMP_EQ"} for value in rule.get("equals", ())
    ]
    return [{**base, "args": [argument]} for argument in arguments] or [base]


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
    except ValueError as error:
        raise _bad(f"it is no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("defaultAction"), str):
        raise _bad("it has no defaultAction")
    found: dict[str, Any] = {"defaultAction": data["defaultAction"]}
    if data.get("defaultErrnoRet") is not None:
        found["defaultErrnoRet"] = data["defaultErrnoRet"]
    if data.get("architectures"):
        found["architectures"] = list(data["architectures"])
    elif data.get("archMap"):
        found["architectures"] = _architectures(data["archMap"], machine)
    if isinstance(data.get("flags"), list):
        found["flags"] = data["flags"]
    syscalls = data.get("syscalls") or []
    if not isinstance(syscalls, list):
        raise _bad("syscalls must be a list")
    found["syscalls"] = [
        _entry(item) for item in syscalls if _applies(item, held, machine.architecture)
    ]
    return found


def _bad(text: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(
        f"invalid seccomp profile: {text}", kind="flag", ref="security-opt"
    )


def _architectures(table: Sequence[Mapping[str, Any]], machine: Profile) -> list[str]:
    native = machine.seccomp_architectures[0]
    for item in table:
        if item.get("architecture") == native:
            return [native, *(item.get("subArchitectures") or ())]
    return [native]


def _applies(item: Any, held: set[str], architecture: str) -> bool:
    if not isinstance(item, dict):
        raise _bad("an entry of syscalls is no object")
    includes, excludes = item.get("includes") or {}, item.get("excludes") or {}
    words = _NATIVE_WORDS.get(architecture, (architecture,))
    if includes.get("arches") and not set(words) & set(includes["arches"]):
        return False
    if includes.get("caps") and not set(includes["caps"]) <= held:
        return False
    if includes.get("minKernel") and not _kernel_is(str(includes["minKernel"])):
        return False
    if excludes.get("minKernel") and _kernel_is(str(excludes["minKernel"])):
        return False
    if set(excludes.get("arches") or ()) & set(words):
        return False
    return not set(excludes.get("caps") or ()) & held


def _kernel_is(wanted: str) -> bool:
    """A condition of the profile's author, who means the release and nothing else."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("-")[0].split(".")[:2] if part.isdigit())

    return numbers(os.uname().release) >= numbers(wanted)


def _entry(item: Mapping[str, Any]) -> dict[str, Any]:
    names = item.get("names") or ([item["name"]] if item.get("name") else [])
    action = item.get("action")
    if not names or not all(isinstance(name, str) for name in names):
        raise _bad("an entry of syscalls has no names")
    if not isinstance(action, str):
        raise _bad(f"{names[0]} has no action")
    entry: dict[str, Any] = {"names": list(names), "action": action}
    if item.get("errnoRet") is not None:
        entry["errnoRet"] = item["errnoRet"]
    arguments = item.get("args") or []
    for argument in arguments:
        if not isinstance(argument, dict) or argument.get("op") not in _OPERATORS:
            raise _bad(f"{names[0]} has an argument with an unknown operator")
    if arguments:
        entry["args"] = [
            {
                "index": argument["index"],
                "value": argument["value"],
                **({"valueTwo": argument["valueTwo"]} if argument.get("valueTwo") else {}),
                "op": argument["op"],
            }
            for argument in arguments
        ]
    return entry


def to_lxc(found: Mapping[str, Any]) -> str:
    """The filter as liblxc reads it (format 2, one list for all architectures).

    Raises Unimplemented for what that format cannot say.
    """
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
