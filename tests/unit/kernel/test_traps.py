"""Traps that real kernels set: answers that look like one thing and mean another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import kernel
from isula_edge.kernel import State
from isula_edge.kernel.finding import from_answer
from tests.unit.kernel.test_booted_kernels import SEEN, load
from tests.unit.kernel.test_matrix import answers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.kernel.conftest import Made

PRESENT, ABSENT, UNUSABLE = State.PRESENT, State.ABSENT, State.UNUSABLE

OLDEST = ("x86_64-3.0.1", "x86_64-3.4.111")


class Asked(kernel.Saved):
    """A saved kernel that notes what it is asked."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.calls: set[str] = set()
        self.files: set[str] = set()

    def call(self, name: str) -> kernel.Answer | None:
        self.calls.add(name)
        return super().call(name)

    def read(self, path: str) -> str | None:
        self.files.add(path)
        return super().read(path)


def everything_asked(kernels: Path) -> Asked:
    """All that is asked of any kernel, by any probe."""
    found = Asked(str(kernels / SEEN[0].directory))
    for seen in SEEN:
        source = Asked(str(kernels / seen.directory))
        kernel.probe(source).to_json()
        found.calls |= source.calls
        found.files |= source.files
    return found


@pytest.mark.parametrize("name", OLDEST)
def test_unshare_says_no_while_clone_works(kernels: Path, name: str) -> None:
    features = load(kernels, name)
    given = answers(kernels, f"{name}-v1")
    for space in ("user", "pid"):
        assert given["unshare"][space]["errname"] == "EINVAL"
        assert given["clone"][space]["errname"] == ""
    assert features.state("pid-namespace") is PRESENT
    assert features.state("unshare-pid") is ABSENT
    # a user namespace that nobody can map is of no use
    assert features.state("user-namespace") is UNUSABLE


@pytest.mark.parametrize("name", OLDEST)
def test_namespace_files_that_are_no_links(kernels: Path, name: str) -> None:
    source = kernel.Saved(str(kernels / f"{name}-v1"))
    assert source.exists("/proc/self/ns/net")
    assert source.link("/proc/self/ns/net") is None
    assert not source.exists("/proc/self/ns/mnt")
    features = kernel.probe(source)
    assert features.state("join-namespaces") is ABSENT
    assert features.state("net-namespace") is PRESENT
    assert features.state("mnt-namespace") is PRESENT


@pytest.mark.parametrize("name", ["x86_64-4.4.155-v1", "x86_64-4.9.115-v1"])
def test_an_action_that_cannot_be_asked_for(kernels: Path, name: str) -> None:
    given = answers(kernels, name)["seccomp"]
    assert given["action_ALLOW"]["errname"] == "EINVAL"  # which every filter has
    features = load(kernels, name)
    assert features.state("seccomp-filter") is PRESENT
    assert features.state("seccomp-errno") is PRESENT
    assert features.state("seccomp-notify") is ABSENT


def test_an_action_that_is_said_not_to_be_there(kernels: Path) -> None:
    found = load(kernels, "x86_64-4.19.72-v1").get("seccomp-notify")
    assert (found.state, "EOPNOTSUPP" in found.why) == (ABSENT, True)


def test_success_of_a_mount_option_is_no_support(kernels: Path) -> None:
    """3.0.1 mounts proc with options that it does not know, and says nothing."""
    given = answers(kernels, "x86_64-3.0.1-v1")["mount"]
    assert given["proc_subset_pid"]["errname"] == ""
    assert given["proc_hidepid2"]["errname"] == ""
    newer = answers(kernels, "x86_64-6.1.0-50-cloud-amd64-v2")["mount"]
    # overlay's new interface takes a key when it is set and refuses it when it is mounted
    assert newer["overlay_lowerdir_plus"]["errname"] == ""
    misleading = {
        "mount.proc_subset_pid",
        "mount.proc_hidepid2",
        "mount.overlay_lowerdir_plus",
        "mount.overlay_new_api",
    }
    assert not everything_asked(kernels).calls & misleading


def test_the_call_is_there_and_its_flag_is_not(kernels: Path) -> None:
    features = load(kernels, "x86_64-5.10.0-32-cloud-amd64-v2")
    assert features.state("close-range") is PRESENT
    assert features.state("close-range-cloexec") is ABSENT
    assert features.state("mount-setattr") is ABSENT
    assert features.state("open-tree") is PRESENT
    assert features.state("memfd") is PRESENT
    assert features.state("memfd-exec") is ABSENT


@pytest.mark.parametrize(
    ("errname", "state"), [("EFAULT", PRESENT), ("EINVAL", ABSENT), ("ENOSYS", ABSENT)]
)
def test_a_null_filter(made: Made, errname: str, state: State) -> None:
    features = kernel.probe(made({}, {"seccomp.prctl_mode_filter_null": errname}))
    assert features.state("seccomp-filter") is state


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.directory)
def test_two_errnos_of_one_call_that_is_there(kernels: Path, seen: object) -> None:
    """open_by_handle_at(2) of no descriptor is EFAULT or EBADF, by release."""
    source = kernel.Saved(str(kernels / seen.directory))  # type: ignore[attr-defined]
    answer = source.call("syscalls.open_by_handle_at")
    assert answer is not None
    assert answer.errname in ("EFAULT", "EBADF")
    assert from_answer("open_by_handle_at(2)", answer).state is PRESENT


def test_no_modules_is_no_age(kernels: Path) -> None:
    """finit_module(2) is ENOSYS on 6.18 without CONFIG_MODULES as on 3.4."""
    assert load(kernels, "x86_64-6.18.44-host-hybrid").state("loadable-modules") is ABSENT
    assert load(kernels, "x86_64-3.4.111").state("loadable-modules") is ABSENT
    assert load(kernels, "x86_64-5.10.0-32-cloud-amd64-v2").state("loadable-modules") is PRESENT


def test_no_probe_needs_the_configuration_of_the_kernel(kernels: Path) -> None:
    """Debian's cloud kernels have no /proc/config.gz."""
    files = everything_asked(kernels).files
    assert not {path for path in files if "config" in path.rpartition("/")[2]}


def test_attributes_on_tmpfs(kernels: Path) -> None:
    assert load(kernels, "x86_64-6.1.0-50-cloud-amd64-v2").state("tmpfs-user-xattr") is ABSENT
    newer = load(kernels, "x86_64-6.12.117+deb13-cloud-amd64-v2")
    assert newer.state("tmpfs-user-xattr") is PRESENT


def test_controllers_that_version_1_holds(kernels: Path) -> None:
    """The unified hierarchy of a hybrid machine shows what is left."""
    features = load(kernels, "x86_64-6.18.44-host-v2view")
    assert features.cgroups().unified_controllers == ("hugetlb",)
    for name in ("memory", "cpu", "pids"):
        found = features.get(f"cgroup-{name}")
        assert (found.state, "bound to version 1" in found.why) == (UNUSABLE, True)


@pytest.mark.parametrize(
    ("name", "errname"), [("3.0.1", "EINVAL"), ("3.4.111", "EINVAL"), ("3.10.105", "ENOTTY")]
)
def test_two_errnos_of_a_terminal_that_cannot_be_opened(
    kernels: Path, name: str, errname: str
) -> None:
    found = load(kernels, f"x86_64-{name}").get("tiocgptpeer")
    assert (found.state, errname in found.why) == (ABSENT, True)


def test_what_only_the_oldest_lacks(kernels: Path) -> None:
    oldest, next_one = (load(kernels, name) for name in OLDEST)
    for feature in ("child-subreaper", "loop-control", "o-path-fchdir", "cgroup-net_prio"):
        assert oldest.state(feature) is ABSENT, feature
        assert next_one.state(feature) is PRESENT, feature


def test_random_numbers_that_would_have_waited(kernels: Path) -> None:
    """TLS hung on 3.19.8 until its pool was seeded; 3.4 has no call and does not wait."""
    assert load(kernels, "x86_64-3.19.8").state("entropy") is UNUSABLE
    assert load(kernels, "x86_64-3.4.111").state("entropy") is PRESENT


@pytest.mark.parametrize(("size", "state"), [(4096, PRESENT), (16384, ABSENT), (65536, ABSENT)])
def test_page_sizes(made: Made, size: int, state: State) -> None:
    """16K (Raspberry Pi 5, Apple) and 64K (servers): AT_PAGESZ, not a table by architecture."""
    source = made({}, {"abi.page_size": ""})
    source._answers = {"abi.page_size": kernel.Answer(size)}
    found = kernel.probe(source).get("page-size-4k")
    assert found.state is state
    assert found.why == f"a page has {size >> 10} KiB"


@pytest.mark.parametrize("size", [16384, 65536])
def test_a_kernel_of_larger_pages_runs_the_engine(kernels: Path, size: int) -> None:
    source = kernel.Saved(str(kernels / "aarch64-6.12.117+deb13-cloud-arm64-v2"))
    source._answers = {**source._answers, "abi.page_size": kernel.Answer(size)}
    features = kernel.probe(source)
    assert features.verdict().status is kernel.Status.OK
    assert "programs linked for 4 KiB pages only" in features.get("page-size-4k").without


@pytest.mark.parametrize(
    ("bits", "errname", "state"),
    [(64, None, PRESENT), (32, "ENOSYS", ABSENT), (32, "EFAULT", PRESENT), (32, None, None)],
)
def test_times_after_2038(made: Made, bits: int, errname: str | None, state: State | None) -> None:
    source = made({})
    source._answers = {"abi.word_bits": kernel.Answer(bits)}
    if errname is not None:
        source._answers["time64.clock_gettime64"] = kernel.Answer(-1, errname)
    assert kernel.probe(source).state("time64") is (state or State.UNKNOWN)


KNOBS = [
    ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, UNUSABLE),
    ({"/proc/sys/kernel/unprivileged_userns_clone": "1\n"}, PRESENT),
    ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, UNUSABLE),
    ({"/proc/sys/user/max_user_namespaces": "0\n"}, UNUSABLE),
    ({"/proc/sys/user/max_user_namespaces": "100\n"}, PRESENT),
]


@pytest.mark.parametrize(("files", "state"), KNOBS)
def test_user_namespaces_of_an_ordinary_user(
    made: Made, files: dict[str, str], state: State
) -> None:
    base = {"/proc/self/uid_map": "0 0 4294967295\n"}
    source = made({**base, **files}, {"clone.user": "", "unshare.unpriv_user": ""})
    assert kernel.probe(source).state("userns-unprivileged") is state


def test_a_security_module_that_is_built_and_not_active(made: Made) -> None:
    files = {"/sys/kernel/security/lsm": "lockdown,capability,landlock,yama,apparmor"}
    features = kernel.probe(made(files, {"syscalls.landlock_create_ruleset": "EOPNOTSUPP"}))
    assert features.state("smack") is ABSENT
    assert features.state("landlock") is UNUSABLE
    old = kernel.probe(made({"/proc/filesystems": "nodev\tsmackfs\n"}))
    assert old.state("smack") is PRESENT
