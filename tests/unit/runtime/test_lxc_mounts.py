"""LXC's configuration of a runtime-spec document: mounts, hidden and read-only paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isula_edge import errors
from isula_edge.runtime import lxc_config
from isula_edge.runtime.lxc_config import fstab_escape, mount_entry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.runtime.conftest import MakeBundle


class Mounts(Protocol):
    """Gives what a configuration mounts."""

    def __call__(self, *mounts: dict[str, Any], **linux: Any) -> tuple[list[str], list[str]]:
        """Values of lxc.mount.auto and of lxc.mount.entry."""


@pytest.fixture
def mounts(make_bundle: MakeBundle) -> Mounts:
    def make(*mounts: dict[str, Any], **linux: Any) -> tuple[list[str], list[str]]:
        bundle = make_bundle({"root": {"path": "/r"}, "mounts": list(mounts), "linux": linux})
        text = lxc_config.build(bundle, version="1", monitor_cgroup="m", seccomp_path="/s").text
        pairs = [line.split(" = ", 1) for line in text.splitlines()]
        auto = [value for key, value in pairs if key == "lxc.mount.auto"]
        return auto, [value for key, value in pairs if key == "lxc.mount.entry"]

    return make


def mount(target: str, kind: str, source: str = "", *options: str) -> dict[str, Any]:
    found: dict[str, Any] = {"destination": target, "type": kind, "options": list(options)}
    return found | ({"source": source} if source else {})


def unescape(field: str) -> str:
    """What getmntent(3) makes of a field."""
    for char in " \t\n\\":
        field = field.replace(f"\\{ord(char):03o}", char)
    return field


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/plain", "/plain"),
        ("/a b", "/a\\040b"),
        ("/tab\there", "/tab\\011here"),
        ("/new\nline", "/new\\012line"),
        ("/back\\slash", "/back\\134slash"),
        ("/a\\040b", "/a\\134040b"),
    ],
)
def test_fields_of_fstab(text: str, escaped: str) -> None:
    assert fstab_escape(text) == escaped
    assert unescape(escaped) == text


@given(st.text())
def test_a_field_stays_one_field(text: str) -> None:
    try:
        escaped = fstab_escape(text)
    except errors.InvalidArgument as error:
        assert set("\r\0") & set(text)
        assert error.ref == text  # noqa: PT017  # of any text
        return
    assert not set(" \t\n\r") & set(escaped)


def test_an_entry_of_the_engines_own() -> None:
    assert mount_entry("/run/a b", "/dev/x", ("bind", "ro")) == (
        "lxc.mount.entry = /run/a\\040b dev/x none bind,ro 0 0\n"
    )


@pytest.mark.parametrize(
    ("item", "auto"),
    [
        (mount("/proc", "proc", "proc", "nosuid", "nodev", "noexec"), "proc:rw"),
        (mount("/sys", "sysfs", "sysfs", "ro"), "sys:ro"),
        (mount("/sys", "sysfs", "sysfs", "rw"), "sys:rw"),
        (mount("/sys/", "sysfs", "sysfs", "ro"), "sys:ro"),
        (mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro"), "cgroup:ro:force"),
        (mount("/sys/fs/cgroup", "cgroup", "cgroup"), "cgroup:rw:force"),
        (mount("/sys/fs/cgroup", "cgroup2", "cgroup", "ro"), "cgroup:ro:force"),
    ],
)
def test_what_lxc_mounts_by_itself(mounts: Mounts, item: dict[str, Any], auto: str) -> None:
    assert mounts(item) == ([auto], [])


def test_all_of_it_comes_on_one_line(mounts: Mounts) -> None:
    auto, _ = mounts(
        mount("/proc", "proc", "", "nosuid", "nodev", "noexec"),
        mount("/sys", "sysfs", "", "ro"),
        mount("/sys/fs/cgroup", "cgroup"),
    )
    assert auto == ["proc:rw sys:ro cgroup:rw:force"]


def test_a_read_only_proc_is_written_as_lxc_has_it(mounts: Mounts) -> None:
    """It knows no proc:ro, and its proc:mixed can be written."""
    found = mounts(mount("/proc", "proc", "proc", "nosuid", "ro"))
    assert found == ([], ["proc proc proc nosuid,ro 0 0"])


def test_terminals_are_lxcs_own(mounts: Mounts) -> None:
    assert mounts(mount("/dev/pts", "devpts", "devpts", "gid=5", "mode=0620")) == ([], [])


def test_dev_is_mounted_over_lxcs(mounts: Mounts) -> None:
    """LXC knows of its flags nothing, and makes devices in what is there at the end."""
    item = mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k")
    assert mounts(item) == (
        [], ["tmpfs dev tmpfs nosuid,strictatime,mode=755,size=65536k 0 0"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("item", "entry"),
    [
        (mount("/proc", "proc", "proc", "nosuid"), "proc proc proc nosuid 0 0"),
        (mount("/sys", "sysfs", "sysfs", "ro", "nosuid"), "sysfs sys sysfs ro,nosuid 0 0"),
        (mount("a/../../b", "tmpfs", "x"), "x b tmpfs defaults 0 0"),
        (mount("/../../etc", "bind", "/a", "bind"), "/a etc none bind 0 0"),
    ],
)
def test_with_other_options_lxc_does_not_mount_it_by_itself(
    mounts: Mounts, item: dict[str, Any], entry: str
) -> None:
    assert mounts(item) == ([], [entry])


def test_a_target_on_a_mount_before_is_made(mounts: Mounts) -> None:
    _, entries = mounts(
        mount("/t", "tmpfs"),
        mount("/t/a", "tmpfs"),
        mount("/ta", "tmpfs"),
        mount("/t", "bind", "/usr", "bind"),
        mount("/t/b", "tmpfs"),
    )
    assert [entry for entry in entries if "create=dir" in entry] == [
        "tmpfs t/a tmpfs create=dir 0 0"
    ]


def test_flags_that_a_source_lacks_are_staged(mounts: Mounts, tmp_path: Path) -> None:
    item = mount("/d", "bind", str(tmp_path), "bind", "noexec")
    ((_, (entry,)),) = [mounts(item)]
    assert entry.endswith("/mounts/f0 d none bind,noexec 0 0")
    # LXC itself sets them with ro
    item["options"].append("ro")
    assert mounts(item) == ([], [f"{tmp_path} d none bind,noexec,ro 0 0"])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (mount("/t", "tmpfs", "#x"), "a source that begins with # for a comment"),
        (mount("/t", "tmpfs", "x", "size=" + "1" * 5000), "is longer than the 4095 bytes"),
        (mount("/" + "d" * 2100, "bind", "/" + "s" * 2100), "is longer than the 4095 bytes"),
        (mount("/t\r", "tmpfs"), "carriage return or NUL"),
    ],
)
def test_what_getmntent_would_not_give_back_is_refused(
    mounts: Mounts, item: dict[str, Any], words: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        mounts(item)


@pytest.mark.parametrize(
    ("item", "entry"),
    [
        (
            mount("/data", "bind", "/a b", "rbind", "rprivate", "ro"),
            "/a\\040b data none rbind,rprivate,ro 0 0",
        ),
        # a bind mount that does not say which one is recursive
        (mount("/data", "bind", "/a", "ro"), "/a data none rbind,ro 0 0"),
        (mount("/data", "none", "/a", "bind"), "/a data none bind 0 0"),
        (mount("/data", "", "/a", "rbind"), "/a data none rbind 0 0"),
        (mount("/t", "tmpfs", "tmpfs", "size=5"), "tmpfs t tmpfs size=5 0 0"),
        (mount("/t", "tmpfs"), "tmpfs t tmpfs defaults 0 0"),
        (mount("/a b/c\\d", "tmpfs", "x y"), "x\\040y a\\040b/c\\134d tmpfs defaults 0 0"),
        (mount("/t", "tmpfs", "", "a\nb"), "tmpfs t tmpfs a\\012b 0 0"),
        # proc elsewhere is a mount as any other
        (mount("/other", "proc", "proc"), "proc other proc defaults 0 0"),
        (mount("/sys", "proc", "proc"), "proc sys proc defaults 0 0"),
        # what lies over LXC's /dev is not its own
        (mount("/dev", "bind", "/dev", "rbind"), "/dev dev none rbind 0 0"),
    ],
)
def test_entries(mounts: Mounts, item: dict[str, Any], entry: str) -> None:
    assert mounts(item) == ([], [entry])


def test_entries_keep_their_order(mounts: Mounts) -> None:
    _, entries = mounts(mount("/b", "tmpfs"), mount("/a", "tmpfs"), mount("/b/c", "tmpfs"))
    assert [entry.split(" ")[1] for entry in entries] == ["b", "a", "b/c"]


def test_targets_in_dev_are_made(mounts: Mounts, tmp_path: Path) -> None:
    """LXC's /dev is empty at first: a file is made for a file, else a directory."""
    file = tmp_path / "file"
    file.touch()
    _, entries = mounts(
        mount("/dev/shm", "tmpfs", "shm", "mode=1777"),
        mount("/dev/x", "bind", str(file), "rbind"),
        mount("/dev/y", "bind", str(tmp_path), "rbind"),
        mount("/dev/z", "bind", "/no/such/source", "rbind"),
    )
    assert [entry.split(" ")[3].rpartition(",")[2] for entry in entries] == [
        "create=dir", "create=file", "create=dir", "create=dir",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["shared", "rshared"])
def test_shared_mounts_are_left_to_the_hooks(mounts: Mounts, word: str) -> None:
    item = mount("/data", "bind", "/a", "rbind", word)
    assert lxc_config.is_shared(item)
    assert mounts(item) == ([], [])


@pytest.mark.parametrize("word", ["private", "rprivate", "slave", "rslave", ""])
def test_other_mounts_are_not_shared(word: str) -> None:
    assert not lxc_config.is_shared(mount("/data", "bind", "/a", "rbind", word))
    assert not lxc_config.is_shared({"destination": "/data"})


def test_read_only_paths_are_bound_and_then_made_so(mounts: Mounts) -> None:
    """The kernel ignores ro when a bind mount is made; a path that is not there is fine."""
    _, entries = mounts(readonlyPaths=["/proc/sys"])
    assert entries == ["proc/sys proc/sys none rbind,ro,relative,optional 0 0"]
    _, entries = mounts(mount("/proc", "proc"), readonlyPaths=["/proc/sys", "/proc/none"])
    assert entries[1:] == [
        "proc/sys proc/sys none rbind,ro,relative 0 0",
        "proc/none proc/none none rbind,ro,relative,optional 0 0",
    ]


def test_masked_paths_are_covered(mounts: Mounts, tmp_path: Path) -> None:
    """Directories are those of the container, wherever they come from."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    _, entries = mounts(
        mount("/folder", "bind", str(tmp_path)),
        mount("/data", "bind", str(tmp_path)),
        mount("/file", "bind", str(tmp_path / "file")),
        maskedPaths=["/folder", "/file", "/data", "/data/folder", "/datafile", "/scratch/x",
                     "/proc/self", "/proc/version", "/no/such/file"],
    )  # fmt: skip
    there = ("folder", "file", "data", "data/folder")
    assert entries[3:] == [
        f"tmpfs {path} tmpfs ro,size=0k{'' if path in there else ',optional'} 0 0"
        if path in ("folder", "data", "data/folder", "proc/self")
        else f"/dev/null {path} none bind{'' if path in there else ',optional'} 0 0"
        for path in ("folder", "file", "data", "data/folder", "datafile", "scratch/x",
                     "proc/self", "proc/version", "no/such/file")
    ]  # fmt: skip


def test_masked_paths_of_the_root(make_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/folder")
    spec = {
        "root": {"path": str(tmp_path)},
        "linux": {"maskedPaths": ["/folder", "/link", "/usr"]},
    }
    text = lxc_config.build(
        make_bundle(spec), version="1", monitor_cgroup="m", seccomp_path="/s"
    ).text
    # the link is followed inside, since LXC mounts on none
    entries = [line.split(" ", 2)[2] for line in text.splitlines() if ".mount.entry" in line]
    assert entries == [
        "tmpfs folder tmpfs ro,size=0k 0 0",
        "tmpfs folder tmpfs ro,size=0k 0 0",
        "/dev/null usr none bind,optional 0 0",
    ]


def test_hidden_paths_come_after_the_mounts_they_hide(mounts: Mounts) -> None:
    _, entries = mounts(
        mount("/proc/a", "tmpfs"), readonlyPaths=["/proc/b"], maskedPaths=["/proc/c"]
    )
    assert [entry.split(" ")[1] for entry in entries] == [
        "proc/a", "proc/b", "proc/c",
    ]  # fmt: skip
