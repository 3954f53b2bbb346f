"""Probes of file systems and of calls on files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isula_edge.kernel.finding import (
    Finding,
    State,
    absent,
    from_answer,
    present,
    unknown,
    unusable,
)
from isula_edge.kernel.source import CAP_SYS_ADMIN, Answer, has_cap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isula_edge.kernel.source import Source

__all__ = ["PROBES", "calls", "device", "filesystems"]


def filesystems(source: Source) -> list[str] | None:
    """Types in /proc/filesystems, or None when it was not saved."""
    text = source.read("/proc/filesystems")
    return None if text is None else [line.split()[-1] for line in text.splitlines() if line]


def calls(what: str, name: str, *missing: str, admin: bool = False) -> Callable[[Source], Finding]:
    """A probe that asks one call; ``missing`` adds errnos that mean absent to ENOSYS."""

    def probe(source: Source) -> Finding:
        privileged = not admin or has_cap(source, CAP_SYS_ADMIN)
        answer = source.call(name)
        return from_answer(what, answer, missing, privileged=privileged)

    return probe


def _filesystem(fstype: str, call: str = "") -> Callable[[Source], Finding]:
    """A file system: asked by a mount that cannot succeed, else looked up in the list.

    The list alone does not tell: a module that is not loaded is not in it, and what is
    in it may be denied.
    """

    def probe(source: Source) -> Finding:
        listed = filesystems(source)
        in_list = listed is not None and fstype in listed
        answer = source.call(call) if call else None
        if answer is not None and not _cannot_ask(source, answer):
            return from_answer(f"mount(2) of {fstype}", answer, ("ENODEV",))
        if in_list:
            return present(f"/proc/filesystems lists {fstype}")
        if listed is None:
            return unknown("/proc/filesystems was not seen")
        if answer is not None:
            return unknown(f"/proc/filesystems does not list {fstype}, mounting was not asked")
        return absent(f"/proc/filesystems does not list {fstype}")

    return probe


def _cannot_ask(source: Source, answer: Answer) -> bool:
    return answer.errname == "EPERM" and not has_cap(source, CAP_SYS_ADMIN)


_overlay = _filesystem("overlay", "mount.overlay")


def _overlay_option(what: str, call: str) -> Callable[[Source], Finding]:
    """What overlay can be told: EINVAL is the answer to what it does not know."""

    def probe(source: Source) -> Finding:
        base = _overlay(source)
        if base.state is not State.PRESENT:
            return Finding(base.state, f"no overlay: {base.why}")
        answer = source.call(call)
        if answer is None or _cannot_ask(source, answer):
            return unknown(f"mounting overlay with {what} was not asked")
        return from_answer(f"overlay with {what}", answer, ("EINVAL",))

    return probe


def _overlay_userns(source: Source) -> Finding:
    base = _overlay(source)
    if base.state is not State.PRESENT:
        return Finding(base.state, f"no overlay: {base.why}")
    # EPERM is the answer of a file system that user namespaces may not mount
    return from_answer(
        "mount(2) of overlay in a user namespace",
        source.call("mount.overlay_userns"),
        ("EPERM", "ENODEV"),
    )


def _o_path(source: Source) -> Finding:
    answer = source.call("syscalls.fchdir_o_path")
    return from_answer("fchdir(2) on an O_PATH descriptor", answer, ("EBADF",))


def _project_quota(source: Source) -> Finding:
    answer = source.call("syscalls.quotactl_project")
    if answer is not None:
        return from_answer("quotactl(2) for projects", answer, ("EINVAL",))
    if source.exists("/proc/sys/fs/quota"):
        return unknown("/proc/sys/fs/quota is there, quotactl(2) for projects was not asked")
    return absent("no /proc/sys/fs/quota")


def _idmapped(source: Source) -> Finding:
    answer = source.call("mount.idmapped_root")
    if answer is not None and answer.errname == "EPERM" and has_cap(source, CAP_SYS_ADMIN):
        return unusable("mount_setattr(2) with a user namespace answers EPERM")
    return from_answer(
        "mount_setattr(2) with a user namespace",
        answer,
        ("EINVAL",),
        privileged=has_cap(source, CAP_SYS_ADMIN),
    )


def _binfmt_misc(source: Source) -> Finding:
    if source.exists("/proc/sys/fs/binfmt_misc/register"):
        return present("/proc/sys/fs/binfmt_misc/register is there")
    if "binfmt_misc" in (filesystems(source) or []):
        return present("/proc/filesystems lists binfmt_misc; it is not mounted now")
    answer = source.call("mount.binfmt_misc")
    if answer is not None:
        return from_answer("mount(2) of binfmt_misc", answer, ("ENODEV",))
    if source.exists("/proc/sys/fs/binfmt_misc"):
        return present("/proc/sys/fs/binfmt_misc is there; it is not mounted now")
    return absent("neither /proc/filesystems nor /proc/sys/fs has binfmt_misc")


def device(path: str) -> Callable[[Source], Finding]:
    """A probe of a device node."""

    def probe(source: Source) -> Finding:
        answer = source.call(f"devices.{path}")
        if answer is None:
            return unknown(f"{path} was not looked for")
        if answer.ok:
            return present(f"{path} is there")
        return absent(f"no {path} ({answer.text})")

    return probe


PROBES: Mapping[str, Callable[[Source], Finding]] = {
    "overlay": _overlay,
    "overlayfs-name": _filesystem("overlayfs", "mount.overlayfs_old_name"),
    "overlay-multilower": _overlay_option("two lower directories", "mount.overlay_multilower"),
    "overlay-volatile": _overlay_option("volatile", "mount.overlay_volatile"),
    "overlay-userns": _overlay_userns,
    "tmpfs": _filesystem("tmpfs"),
    "tmpfs-user-xattr": calls(
        "setxattr(2) of user.* on tmpfs", "mount.tmpfs_xattr_user", "EOPNOTSUPP"
    ),
    "devpts": _filesystem("devpts"),
    "mqueue": _filesystem("mqueue"),
    "o-path-fchdir": _o_path,
    "o-tmpfile": calls("open(2) with O_TMPFILE", "syscalls.open_O_TMPFILE", "EISDIR"),
    "renameat2": calls("renameat2(2)", "syscalls.renameat2_0"),
    "copy-file-range": calls("copy_file_range(2)", "syscalls.copy_file_range"),
    "openat2": calls("openat2(2)", "syscalls.openat2"),
    "statx": calls("statx(2)", "syscalls.statx"),
    "open-tree": calls("open_tree(2)", "mount.open_tree_clone", admin=True),
    "move-mount": calls("move_mount(2)", "mount.move_mount_bad", admin=True),
    "new-mount-api": calls("fsopen(2)", "mount.fsopen_tmpfs", admin=True),
    "mount-setattr": calls("mount_setattr(2)", "mount.mount_setattr_bad", admin=True),
    "idmapped-mounts": _idmapped,
    "project-quota": _project_quota,
    "quotactl-fd": calls("quotactl_fd(2)", "syscalls.quotactl_fd"),
    "loop-control": device("/dev/loop-control"),
    "fuse": device("/dev/fuse"),
    "loadable-modules": calls("finit_module(2)", "syscalls.finit_module"),
    "binfmt-misc": _binfmt_misc,
}
