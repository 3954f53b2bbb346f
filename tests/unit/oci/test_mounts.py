"""``-v``, ``--mount`` and ``--tmpfs``: what they mean, and what is refused in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.oci.mounts import Mount, parse_mount, parse_tmpfs, parse_volume, unique

if TYPE_CHECKING:
    from pathlib import Path

VOLUMES = [
    ("/a:/b", Mount("bind", "/a", "/b")),
    ("/a:/b:rw", Mount("bind", "/a", "/b")),
    ("/a:/b:ro", Mount("bind", "/a", "/b", read_only=True)),
    ("/a:/b:z", Mount("bind", "/a", "/b")),
    ("/a:/b:Z,ro", Mount("bind", "/a", "/b", read_only=True)),
    ("/a:/b:rshared", Mount("bind", "/a", "/b", propagation="rshared")),
    ("/a:/b:ro,slave,z", Mount("bind", "/a", "/b", read_only=True, propagation="slave")),
    ("/:/host", Mount("bind", "/", "/host")),
    ("/a/../x/:/b//c/./d/", Mount("bind", "/x", "/b/c/d")),
    ("//a//x:///b", Mount("bind", "/a/x", "/b")),
    ("/with space:/b c", Mount("bind", "/with space", "/b c")),
]


@pytest.mark.parametrize(("text", "expected"), VOLUMES)
def test_volumes(text: str, expected: Mount) -> None:
    assert parse_volume(text) == expected


BAD_VOLUME = "Invalid volume specification '{}'{}"
NO_TARGET = "Invalid volume: path must be absolute, and destination can't be '/'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (text, BAD_VOLUME.format(text, ""))
            for text in ("", ":", "/a:", ":/b", "/a:/b:", "/a::ro", "/a:/b:ro:z")
        ),
        ("/a:b", BAD_VOLUME.format("/a:b", ",Invalid mode:b")),
        ("/a:ro", BAD_VOLUME.format("/a:ro", ",Invalid mode:ro")),
        ("/a:/b:nocopy", BAD_VOLUME.format("/a:/b:nocopy", ",Invalid mode nocopy for type bind")),
        *(
            (f"/a:/b:{mode}", BAD_VOLUME.format(f"/a:/b:{mode}", f".Invalid mode:{mode}"))
            for mode in ("x", "RO", "ro,rw", "ro,ro", "z,Z", "shared,slave", "ro,,z", " ro")
        ),
        ("/a:b:ro", NO_TARGET),
        ("/a:/", NO_TARGET),
        ("/a:/..", NO_TARGET),
        ("/a://", NO_TARGET),
        ("/a:///", NO_TARGET),
        ("/a:/b/..", NO_TARGET),
    ],
)
def test_what_is_no_volume(text: str, message: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        parse_volume(text)
    assert str(found.value) == message


@pytest.mark.parametrize("text", ["/data", "name:/data", "data", "./a:/b", "name:/data:ro"])
def test_named_and_anonymous_volumes_are_not_served(text: str) -> None:
    with pytest.raises(errors.Unimplemented, match="named and anonymous volumes") as found:
        parse_volume(text)
    assert "-v /host/dir:/dir" in found.value.hint


def test_a_volume_as_the_runtime_spec_has_it() -> None:
    assert parse_volume("/a:/b:ro,shared").spec() == {
        "destination": "/b",
        "type": "bind",
        "source": "/a",
        "options": ["rbind", "shared", "ro"],
    }
    assert parse_volume("/a:/b").spec()["options"] == ["rbind", "rprivate", "rw"]


MOUNTS = [
    ("type=bind,src={},dst=/b", Mount("bind", "{}", "/b")),
    ("dst=/b/,type=bind,source={}/.", Mount("bind", "{}", "/b")),
    ("type=bind,src={},destination=/b", Mount("bind", "{}", "/b")),
    ("type=bind,src={},target=/b,ro", Mount("bind", "{}", "/b", read_only=True)),
    ("type=bind,src={},dst=/b,readonly", Mount("bind", "{}", "/b", read_only=True)),
    ("type=bind,src={},dst=/b,ro=true", Mount("bind", "{}", "/b", read_only=True)),
    ("type=bind,src={},dst=/b,ro=1", Mount("bind", "{}", "/b", read_only=True)),
    ("type=bind,src={},dst=/b,readonly=false", Mount("bind", "{}", "/b")),
    ("type=bind,src={},dst=/b,ro=0", Mount("bind", "{}", "/b")),
    (
        "type=bind,src={},dst=/b,bind-propagation=rslave",
        Mount("bind", "{}", "/b", propagation="rslave"),
    ),
]
HIDDEN = ("noexec", "nosuid", "nodev")


@pytest.mark.parametrize(("text", "expected"), MOUNTS)
def test_bind_mounts(tmp_path: Path, text: str, expected: Mount) -> None:
    wanted = Mount("bind", str(tmp_path), expected.target, expected.read_only, expected.propagation)
    assert parse_mount(text.format(tmp_path)) == wanted


@pytest.mark.parametrize(
    ("text", "read_only", "options"),
    [
        ("type=tmpfs,dst=/t", False, ("mode=1777",)),
        ("type=tmpfs,dst=/t,ro", True, ("mode=1777",)),
        ("type=tmpfs,dst=/t,tmpfs-size=1m", False, ("size=1048576", "mode=1777")),
        ("type=tmpfs,dst=/t,tmpfs-mode=700", False, ("mode=700",)),
        ("type=tmpfs,dst=/t,tmpfs-mode=0755,tmpfs-size=5", False, ("size=5", "mode=0755")),
    ],
)
def test_tmpfs_mounts(text: str, read_only: bool, options: tuple[str, ...]) -> None:
    assert parse_mount(text) == Mount("tmpfs", "", "/t", read_only, "", (*HIDDEN, *options))


BAD_MOUNTS = [
    ("", "Unsupported item:"),
    ("type=bind,src=/dev,dst=/b,uid=5", "Unsupported item:uid"),
    ("type=bind,,dst=/b", "Unsupported item:"),
    ("TYPE=bind", "Unsupported item:TYPE"),
    ("type=bind,type=bind", "More than one type found"),
    ("type=bind,src=/a,source=/b", "More than one source found"),
    ("type=bind,dst=/a,target=/b", "More than one destination found"),
    ("type=bind,ro,readonly", "More than one readonly found"),
    ("type=nfs,dst=/b", "Type must be one of squashfs/bind/volume/tmpfs"),
    ("type,dst=/b", "Type must be one of squashfs/bind/volume/tmpfs"),
    ("type=bind,src=/dev", "Missing destination"),
    ("type=bind,src=/dev,dst=b", "Destination must be absolute path"),
    ("type=bind,src=/dev,dst=", "Destination must be absolute path"),
    ("type=bind,src=/dev,dst", "Destination must be absolute path"),
    ("type=bind,src=/dev,dst=/", "Destination can't be '/'"),
    ("type=bind,src=/dev,dst=/b/..", "Destination can't be '/'"),
    ("type=bind,src=/dev,dst=/b,ro=yes", "Invalid readonly mode:yes"),
    ("type=bind,src=/dev,dst=/b,ro=", "Invalid readonly mode:"),
    ("type=bind,dst=/b", "Missing source"),
    ("type=bind,src=,dst=/b", "Missing source"),
    ("type=bind,src=dev,dst=/b", "Source must be absolute path"),
    ("type=bind,src=/dev,dst=/b,bind-propagation=x", "Invalid propagation mode:x"),
    ("type=bind,src=/no/such/dir,dst=/b", "Source /no/such/dir not exist"),
    ("type=tmpfs,src=/dev,dst=/b", "Source must not be specified"),
    ("type=tmpfs,dst=/b,bind-propagation=slave", "Cannot mix bind options with type tmpfs"),
    ("type=tmpfs,dst=/b,tmpfs-size=x", "Invalid tmpfs-size:x"),
    ("type=tmpfs,dst=/b,tmpfs-size=-1", "Invalid tmpfs-size:-1"),
    ("type=tmpfs,dst=/b,tmpfs-mode=8", "Invalid tmpfs-mode:8"),
    ("type=tmpfs,dst=/b,tmpfs-mode=", "Invalid tmpfs-mode:"),
    ("type=tmpfs,dst=/b,tmpfs-mode=u+x", "Invalid tmpfs-mode:u+x"),
    ("type=tmpfs,dst=/b,tmpfs-mode=\u0661", "Invalid tmpfs-mode:\u0661"),
]


@pytest.mark.parametrize(("text", "why"), BAD_MOUNTS)
def test_what_is_no_mount(text: str, why: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        parse_mount(text)
    assert str(found.value) == f"Invalid mount specification '{text}'.{why}"


@pytest.mark.parametrize(
    ("text", "kind"), [("dst=/b", "volume"), ("type=volume,dst=/b", "volume"),
                       ("type=squashfs,dst=/b", "squashfs")],
)  # fmt: skip
def test_kinds_of_mounts_that_are_not_served(text: str, kind: str) -> None:
    with pytest.raises(errors.Unimplemented, match=f"mount type {kind} is not served") as found:
        parse_mount(text)
    assert "type=bind" in found.value.hint


def test_a_mount_on_the_root_written_twice_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match="Destination can't be '/'"):
        parse_mount("type=bind,src=/dev,dst=//")


@pytest.mark.parametrize(
    "mount",
    [
        lambda: parse_volume("/a://b"),
        lambda: parse_mount("type=tmpfs,dst=//b"),
        lambda: parse_tmpfs("//b"),
    ],
    ids=["-v", "--mount", "--tmpfs"],
)  # fmt: skip
def test_a_target_is_written_in_one_way(mount: object) -> None:
    assert callable(mount)
    assert mount().target == "/b"


@pytest.mark.parametrize("option", ["tmpfs-size=1m", "tmpfs-mode=700"])
def test_options_of_tmpfs_are_refused_for_a_bind_mount(option: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Cannot mix tmpfs options with type bind"):
        parse_mount(f"type=bind,src=/dev,dst=/b,{option}")


@pytest.mark.parametrize(
    ("text", "read_only", "options"),
    [
        ("/t", False, (*HIDDEN, "mode=1777")),
        ("/t:", False, (*HIDDEN, "mode=1777")),
        ("/t:size=5m", False, (*HIDDEN, "size=5m", "mode=1777")),
        ("/t:exec", False, ("nosuid", "nodev", "mode=1777")),
        ("/t:exec,suid,dev", False, ("mode=1777",)),
        ("/t:noexec", False, (*HIDDEN, "mode=1777")),
        ("/t:ro", True, (*HIDDEN, "mode=1777")),
        ("/t:rw,mode=700", False, (*HIDDEN, "mode=700")),
        ("/t:uid=5,gid=6,nr_inodes=10", False, (*HIDDEN, "uid=5", "gid=6", "nr_inodes=10",
                                                "mode=1777")),
    ],
)  # fmt: skip
def test_the_short_form_of_tmpfs(text: str, read_only: bool, options: tuple[str, ...]) -> None:
    assert parse_tmpfs(text) == Mount("tmpfs", "", "/t", read_only, "", options)


@pytest.mark.parametrize("text", ["", "t", ":size=5m", "/", "/.."])
def test_a_tmpfs_without_a_place(text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as found:
        parse_tmpfs(text)
    assert str(found.value) == NO_TARGET


def test_a_tmpfs_as_the_runtime_spec_has_it() -> None:
    assert parse_tmpfs("/t:ro,size=5m").spec() == {
        "destination": "/t",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["ro", *HIDDEN, "size=5m", "mode=1777"],
    }


def test_mounts_are_sorted_so_that_parents_come_first() -> None:
    mounts = [Mount("tmpfs", "", target) for target in ("/b/c", "/a", "/b")]
    assert [mount.target for mount in unique(mounts)] == ["/a", "/b", "/b/c"]


def test_one_target_twice_is_refused() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"^Duplicate mount point: /a$"):
        unique([Mount("bind", "/x", "/a"), Mount("tmpfs", "", "/a")])


def test_a_mount_survives_a_record() -> None:
    mount = parse_tmpfs("/t:ro,size=5m")
    assert Mount(**mount.record()) == mount


def test_flags_of_a_bind() -> None:
    mount = Mount("bind", "/a", "/b", True, options=("noexec", "nodev"))
    assert mount.spec()["options"] == ["rbind", "rprivate", "ro", "noexec", "nodev"]


def test_a_record_of_an_engine_before_image_volumes() -> None:
    old = ("kind", "source", "target", "read_only", "propagation", "options")
    mount = Mount("bind", "/a", "/b")
    record = {name: value for name, value in mount.record().items() if name in old}
    assert Mount.from_record(record) == mount


def test_a_record_of_everything() -> None:
    maps = ((0, 100_000, 65_536),)
    mount = Mount(
        "image", "", "/b", True, image="abc", layers=("sha256:1", "sha256:2"), sub_path="x",
        uid_maps=maps, gid_maps=maps, recursive_read_only=True,
    )  # fmt: skip
    record = mount.record()
    # as CBOR gives it back
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in record.items()}
    assert Mount.from_record(plain) == mount
