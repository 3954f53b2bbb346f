"""The table of containers: names, prefixes of ids, and records that survive."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from isula_edge import errors
from isula_edge.container.record import Container, Status
from isula_edge.container.table import Table
from isula_edge.oci.mounts import Mount
from isula_edge.oci.options import Settings
from isula_edge.types import ChainId, ContainerId, ImageId

if TYPE_CHECKING:
    from pathlib import Path

ONE = "ab" + "1" * 62
TWO = "ab" + "2" * 62
THREE = "cd" + "3" * 62


def container(key: str, name: str = "", runtime: str = "lxc") -> Container:
    return Container(
        ContainerId(key),
        name or key,
        1,
        "busybox:latest",
        ImageId("e" * 64),
        {"Cmd": ["sh"]},
        [ChainId("sha256:1"), ChainId("sha256:2")],
        runtime,
        ["sh", "-c", "exit"],
        Settings(),
    )


def put(table: Table, key: str, name: str = "", runtime: str = "lxc") -> Container:
    found = container(key, name, runtime)
    table.reserve(found.name, found.id)
    os.makedirs(table.dir(found), exist_ok=True)
    table.save(found)
    table.add(found)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path))


def reloaded(table: Table) -> Table:
    found = Table(os.path.dirname(table.folder))
    found.load()
    return found


def test_a_container_is_found_by_id_name_and_prefix(table: Table) -> None:
    one, two = put(table, ONE, "web"), put(table, TWO, "db")
    for ref in (ONE, "web", "/web", ONE[:3], ONE[:63]):
        assert table.get(ref) is one
    assert table.get("ab2") is two
    assert list(table) == [one, two]
    assert len(table) == 2


def test_an_exact_name_wins_over_a_prefix(table: Table) -> None:
    put(table, ONE)
    named = put(table, TWO, "ab1")
    assert table.get("ab1") is named


def test_an_ambiguous_prefix_lists_what_it_may_be(table: Table) -> None:
    put(table, ONE)
    put(table, TWO)
    put(table, THREE)
    with pytest.raises(errors.InvalidArgument, match="ambiguous") as caught:
        table.get("ab")
    assert ONE[:12] in str(caught.value)
    assert TWO[:12] in str(caught.value)
    assert THREE[:12] not in str(caught.value)
    assert table.get("c").id == THREE


@pytest.mark.parametrize("ref", ["absent", "/absent", "fff", "ff" * 32, ""])
def test_what_is_not_there_is_not_found(table: Table, ref: str) -> None:
    put(table, ONE, "web")
    with pytest.raises(errors.NotFound, match=f"^No such container:{ref}$") as caught:
        table.get(ref)
    assert (caught.value.kind, caught.value.ref) == ("container", ref)


def test_a_prefix_of_one_digit_that_matches_nothing_is_not_found(table: Table) -> None:
    put(table, ONE, "web")
    with pytest.raises(errors.NotFound):
        table.get("f")


@pytest.mark.parametrize("ref", ["-x", "a b", "z", "../etc", "näme", "web\n"])
def test_what_cannot_be_a_name_is_invalid(table: Table, ref: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid container name"):
        table.get(ref)


@pytest.mark.parametrize("name", ["ab", "/web", "A.b_c-9", "x" * 1024])
def test_names_that_are_allowed(table: Table, name: str) -> None:
    table.reserve(name, ONE)
    with pytest.raises(errors.AlreadyExists):
        table.reserve(name.lstrip("/"), TWO)


@pytest.mark.parametrize(
    "name", ["", "a", "/", "-ab", ".ab", "_ab", "a b", "a/b", "//ab", "ab\n", "x" * 1025, "über"]
)
def test_names_that_are_not_allowed(table: Table, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid container name"):
        table.reserve(name, ONE)


def test_a_name_is_taken_once_and_can_be_given_back(table: Table) -> None:
    table.reserve("web", ONE)
    with pytest.raises(errors.AlreadyExists, match=f'"web" is already in use by container {ONE}'):
        table.reserve("/web", TWO)
    table.release("/web")
    table.release("web")
    table.reserve("web", TWO)


def test_a_reserved_name_is_no_container_yet(table: Table) -> None:
    table.reserve("web", ONE)
    with pytest.raises(errors.NotFound):
        table.get("web")


def test_forgetting_frees_name_and_id(table: Table) -> None:
    one = put(table, ONE, "web")
    table.forget(one)
    table.forget(one)
    assert list(table) == []
    table.reserve("web", TWO)


def test_forgetting_leaves_the_name_of_another(table: Table) -> None:
    one = put(table, ONE, "web")
    table.release("web")
    two = put(table, TWO, "web")
    table.forget(one)
    assert table.get("web") is two


def test_a_new_name_is_on_disk_when_the_old_one_is_free(table: Table) -> None:
    one = put(table, ONE, "old")
    table.rename(one, "/new")
    assert table.get("new") is one
    assert reloaded(table).get("new").id == ONE
    with pytest.raises(errors.NotFound):
        table.get("old")
    table.reserve("old", TWO)


def test_renaming_to_a_name_in_use_changes_nothing(table: Table) -> None:
    one, two = put(table, ONE, "one"), put(table, TWO, "two")
    with pytest.raises(errors.AlreadyExists):
        table.rename(one, "two")
    assert (table.get("one"), table.get("two")) == (one, two)
    assert reloaded(table).get("one").id == ONE


def failing(error: Exception, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_container: Container, *, durable: bool = True) -> None:
        del durable
        raise error

    monkeypatch.setattr(table, "save", save)


def test_renaming_without_space_changes_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put(table, ONE, "old")
    failing(errors.NoSpace("full"), table, monkeypatch)
    with pytest.raises(errors.NoSpace):
        table.rename(one, "new")
    assert table.get("old") is one
    assert one.name == "old"
    table.reserve("new", TWO)


def test_renaming_on_a_broken_disk_changes_nothing(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = put(table, ONE, "old")
    failing(OSError(5, "Input/output error"), table, monkeypatch)
    with pytest.raises(OSError, match="Input/output"):
        table.rename(one, "new")
    assert one.name == "old"
    table.reserve("new", TWO)


def test_containers_by_image_and_layers_in_use(table: Table) -> None:
    one, two = put(table, ONE), put(table, TWO)
    assert table.uses() == {"e" * 64: [one, two]}
    assert table.chains() == {"sha256:1", "sha256:2"}


# records


def test_a_container_comes_back_as_it_was(table: Table) -> None:
    one = container(ONE, "web", "runc")
    one.settings = Settings(
        env=["A=b"],
        labels={"k": "v"},
        entrypoint="",
        memory=1 << 30,
        ulimits=[("nofile", 1, 2)],
        mounts=[Mount("bind", "/a", "/b", read_only=True, options=("rbind",))],
        oom_score_adj=None,
    )
    one.state.status = Status.EXITED
    one.state.exit_code, one.state.finished_ns, one.state.oom_killed = 137, 10**18 + 1, True
    table.reserve("web", ONE)
    os.makedirs(table.dir(one))
    table.save(one)
    back = reloaded(table).get("web")
    assert back.settings == one.settings
    assert back.state == one.state
    assert (back.id, back.name, back.image, back.image_id) == (ONE, "web", one.image, one.image_id)
    assert (back.image_config, back.chain_ids, back.args) == (
        one.image_config,
        one.chain_ids,
        one.args,
    )
    assert back.state.status is Status.EXITED


@pytest.mark.parametrize("status", list(Status))
def test_a_container_has_a_process_when_it_runs(status: Status) -> None:
    one = container(ONE)
    one.state.status = status
    running = {Status.RUNNING, Status.PAUSED, Status.STARTING}
    assert one.running == (status in running)


def test_containers_of_every_runtime_are_loaded(table: Table) -> None:
    put(table, ONE, "one", "lxc")
    put(table, TWO, "two", "runc")
    assert sorted(found.name for found in reloaded(table)) == ["one", "two"]


@pytest.mark.parametrize("damage", [b"", b"ISR1", b"\0" * 200, b"x" * 1000])
def test_a01_a_damaged_container_is_put_aside_and_the_rest_goes_on(
    table: Table, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one = put(table, ONE, "one")
    put(table, TWO, "two")
    folder = table.dir(one)
    for name, data in (("container.cbor", damage), ("config.json", b"{}")):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(data)
    with caplog.at_level(logging.ERROR):
        again = reloaded(table)
    assert [found.name for found in again] == ["two"]
    assert not os.path.exists(folder)
    assert again.quarantined[0].startswith(f"{os.path.dirname(table.folder)}/quarantine/")
    assert sorted(os.listdir(again.quarantined[0])) == ["config.json", "container.cbor"]
    with open(f"{again.quarantined[0]}/container.cbor", "rb") as file:
        assert file.read() == damage
    assert ONE in caplog.text
    again.reserve("one", THREE)
    assert reloaded(table).quarantined == []


def test_a01_a_container_may_be_damaged_again_after_it_was_restored(table: Table) -> None:
    for _ in range(2):
        one = container(ONE, "one")
        os.makedirs(table.dir(one))
        for name in ("container.cbor", "config.json"):
            with open(f"{table.dir(one)}/{name}", "wb") as file:
                file.write(b"damaged")
        assert len(reloaded(table).quarantined) == 1


def test_a_container_that_was_never_finished_is_removed(table: Table) -> None:
    put(table, ONE, "one")
    os.makedirs(f"{table.folder}/lxc/{TWO}/left/over")
    again = reloaded(table)
    assert [found.name for found in again] == ["one"]
    assert os.listdir(f"{table.folder}/lxc") == [ONE]
    assert again.quarantined == []


@pytest.mark.parametrize("name", ["dead-" + TWO, ".tmp-" + TWO])
def test_a_removal_that_was_interrupted_is_finished(table: Table, name: str) -> None:
    os.makedirs(f"{table.folder}/lxc/{name}/x")
    assert len(reloaded(table)) == 0
    assert os.listdir(f"{table.folder}/lxc") == []


def test_temporary_files_of_a_crash_are_removed(table: Table) -> None:
    folder = table.dir(put(table, ONE, "one"))
    with open(f"{folder}/.tmp-container.cbor-1-2", "wb") as file:
        file.write(b"half")
    assert len(reloaded(table)) == 1
    assert os.listdir(folder) == ["container.cbor"]


@pytest.mark.parametrize("place", ["stray", f"lxc/{TWO}"])
def test_a01_a_stray_file_is_not_fatal(table: Table, place: str) -> None:
    put(table, ONE, "one")
    with open(f"{table.folder}/{place}", "wb") as file:
        file.write(b"x")
    assert [found.name for found in reloaded(table)] == ["one"]


def test_two_records_of_one_name_are_both_kept(table: Table) -> None:
    put(table, ONE, "web")
    table.release("web")
    put(table, TWO, "web")
    again = reloaded(table)
    assert again.get("web").id == ONE
    assert again.get(TWO).name == TWO


def test_a_container_of_a_newer_engine_is_left_where_it_is(table: Table) -> None:
    one = put(table, ONE, "one")
    put(table, TWO, "two")
    path = f"{table.dir(one)}/container.cbor"
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(b"\0\x63")
    again = reloaded(table)
    assert [found.name for found in again] == ["two"]
    assert os.path.exists(path)
    assert (again.newer, again.quarantined) == ({ONE}, [])
    assert ONE in again.known()
    assert ONE in again.unreadable()
    assert TWO not in again.unreadable()


def test_a_damaged_container_is_known_as_such_at_every_start(table: Table) -> None:
    one = put(table, ONE, "one")
    with open(f"{table.dir(one)}/container.cbor", "wb"):
        pass
    assert ONE in reloaded(table).unreadable()
    again = reloaded(table)
    assert again.quarantined == []
    assert ONE in again.unreadable()


def test_layers_and_images_of_volumes_are_used(table: Table) -> None:
    found = put(table, ONE)
    found.settings.mounts = [Mount("image", "", "/v", True, image="f" * 64, layers=("sha256:9",))]
    table.save(found)
    for seen in (table, reloaded(table)):
        assert seen.chains() == {"sha256:1", "sha256:2", "sha256:9"}
        assert {key: len(users) for key, users in seen.uses().items()} == {
            "e" * 64: 1,
            "f" * 64: 1,
        }
