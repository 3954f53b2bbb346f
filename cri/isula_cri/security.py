"""Security contexts: users, groups, seccomp, AppArmor and SELinux of pods and containers."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from isula_cri import messages
from isula_edge import errors
from isula_edge.oci.capabilities import choose

if TYPE_CHECKING:
    from isula_edge.oci.options import Settings
    from isula_edge.pod.record import Pod

__all__ = ["apply", "check_pod", "selinux_label"]

_PROFILES = {
    number: name.lower()
    for name, number in messages.SecurityProfile.ProfileType.items()
}
_STRICT = messages.enum("SupplementalGroupsPolicy")["Strict"]
_LEVEL = re.compile(r"s[0-9]+(-s[0-9]+)?(:c[0-9]{1,4}([.,]c[0-9]{1,4})*)?")
_SELINUX_WORD = re.compile(r"[A-Za-z0-9_.]+")
_DEFAULT_SECCOMP = ("runtime/default", "docker/default", "iSulad/default")
_MAX_PROFILE = 4 << 20


def apply(settings: Settings, context: Any, pod: Pod) -> None:
    """Sets in ``settings`` what a LinuxContainerSecurityContext asks for; InvalidArgument."""
    check_group(context)
    if context.privileged and not pod.spec.privileged:
        raise errors.InvalidArgument(
            "a privileged container needs a privileged pod sandbox", kind="container", ref=pod.id
        )
    settings.privileged = context.privileged
    settings.read_only = context.readonly_rootfs
    settings.no_new_privileges = context.no_new_privs and not context.privileged
    settings.user = _user(context)
    groups = context.supplemental_groups
    settings.group_add = [_id("supplemental_groups", number) for number in groups]
    settings.groups_strict = context.supplemental_groups_policy == _STRICT
    capabilities = context.capabilities
    settings.cap_add = list(capabilities.add_capabilities)
    settings.cap_drop = list(capabilities.drop_capabilities)
    settings.ambient = list(capabilities.add_ambient_capabilities)
    # an unknown name is refused now, not at the start
    choose(settings.cap_add, settings.cap_drop, also=settings.ambient)
    settings.masked_paths = list(context.masked_paths)
    settings.readonly_paths = list(context.readonly_paths)
    settings.seccomp = "unconfined" if context.privileged else _seccomp(context)
    settings.apparmor = "unconfined" if context.privileged else _apparmor(context)
    own = selinux_label(context.selinux_options)
    settings.selinux = "" if context.privileged else own or pod.spec.security.get("selinux", "")


def check_pod(context: Any) -> None:
    """Refuses what is wrong in a LinuxSandboxSecurityContext.

    A pod has no process that seccomp, AppArmor, users or groups would be for.
    """
    check_group(context)
    if not context.privileged:
        _seccomp(context)
        _apparmor(context)


def check_group(context: Any) -> None:
    """InvalidArgument for a group without a user."""
    named = context.HasField("run_as_user") or getattr(context, "run_as_username", "")
    if context.HasField("run_as_group") and not named:
        raise errors.InvalidArgument("runAsGroup without runAsUser", kind="user")


def _user(context: Any) -> str:
    """``user[:group]``; '' for the image's own."""
    if context.run_as_username:
        name = context.run_as_username
    elif context.HasField("run_as_user"):
        name = _id("run_as_user", context.run_as_user.value)
    else:
        return ""
    if context.HasField("run_as_group"):
        return f"{name}:{_id('run_as_group', context.run_as_group.value)}"
    return str(name)


def _id(field: str, number: int) -> str:
    if not 0 <= number < 2**32 - 1:
        raise errors.InvalidArgument(f"{field} {number} is no user or group id", ref=field)
    return str(number)


def _seccomp(context: Any) -> str:
    """'' for the engine's own profile, ``unconfined``, or the text of a profile."""
    if context.HasField("seccomp"):
        kind = messages.word(_PROFILES, context.seccomp.profile_type, "seccomp.profile_type")
        if kind == "localhost":
            return _profile(context.seccomp.localhost_ref)
        return "" if kind == "runtimedefault" else "unconfined"
    path = context.seccomp_profile_path
    if path in ("", "unconfined"):
        return "unconfined"
    if path in _DEFAULT_SECCOMP:
        return ""
    if path.startswith("localhost/"):
        return _profile(path.removeprefix("localhost/"))
    raise errors.InvalidArgument(
        f"unknown seccomp profile option: {path}", kind="seccomp", ref=path
    )


def _profile(path: str) -> str:
    if not path.startswith("/"):
        raise errors.InvalidArgument(
            f"seccomp profile path must be absolute, it is {path or 'empty'}",
            kind="seccomp",
            ref=path,
        )
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_PROFILE:
            raise errors.InvalidArgument(
                f"seccomp profile {path} is no file, or too large", kind="seccomp", ref=path
            )
        with open(path, encoding="utf-8") as file:
            text = file.read()
        json.loads(text)
        return text
    except (OSError, ValueError, RecursionError) as error:
        raise errors.InvalidArgument(
            f"seccomp profile {path} cannot be read: {error}", kind="seccomp", ref=path
        ) from error


def _apparmor(context: Any) -> str:
    """'' for the engine's default, ``unconfined``, or the name of a loaded profile."""
    if context.HasField("apparmor"):
        kind = messages.word(_PROFILES, context.apparmor.profile_type, "apparmor.profile_type")
        if kind == "localhost":
            return _named(context.apparmor.localhost_ref)
        return "" if kind == "runtimedefault" else "unconfined"
    text = str(getattr(context, "apparmor_profile", ""))
    if text in ("", "runtime/default"):
        return ""
    if text == "unconfined":
        return text
    if text.startswith("localhost/"):
        return _named(text)
    raise errors.InvalidArgument(f"unknown AppArmor profile option: {text}", ref=text)


def _named(text: str) -> str:
    name = str(text).removeprefix("localhost/")
    if not name:
        raise errors.InvalidArgument("an AppArmor profile of the host needs a name")
    return name


def selinux_label(options: Any) -> str:
    """``user:role:type:level``; '' when nothing is asked for.  InvalidArgument."""
    words = [options.user, options.role, options.type]
    if not any((*words, options.level)):
        return ""
    for word in filter(None, words):
        if not _SELINUX_WORD.fullmatch(word):
            raise errors.InvalidArgument(f"The format of SELinux option {word} is not correct")
    if options.level and not _LEVEL.fullmatch(options.level):
        raise errors.InvalidArgument(f"The format of 'level' {options.level} is not correct")
    defaults = ("system_u", "system_r", "container_t")
    label = [word or default for word, default in zip(words, defaults, strict=True)]
    return ":".join([*label, options.level or "s0"])
