"""--storage-opt of create and run."""

from __future__ import annotations

import pytest

from isula_edge import errors
from isula_edge.oci import options

GOOD = [
    ([], 0),
    (["size=10G"], 10 << 30),
    (["size=4096"], 4096),
    (["SIZE=1m"], 1 << 20),
    (["size=0"], 0),
    (["size=1g", "size=2g"], 2 << 30),
]


@pytest.mark.parametrize(("items", "size"), GOOD)
def test_sizes(items: list[str], size: int) -> None:
    settings = options.parse({"storage_opt": items}, cpus=1)
    assert settings.storage_size == size
    assert options.from_record(options.to_record(settings)).storage_size == size


BAD = [
    ("size", "Invalid storage option 'size'"),
    ("inodes=5", "Unknown storage option: inodes"),
    ("size=4095", "Illegal storage quota size 4095, 4096 at least"),
    ("size=big", "Invalid quota size: 'big'"),
    ("size=", "Invalid quota size: ''"),
    ("size=-1", "Invalid quota size: '-1'"),
]


@pytest.mark.parametrize(("item", "text"), BAD)
def test_wrong_ones_are_refused_by_name(item: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        options.parse({"storage_opt": [item]}, cpus=1)
    assert caught.value.message == text


def test_a_directory_of_the_users_cannot_be_limited(tmp_path: object) -> None:
    given = {"storage_opt": ["size=1g"], "external_rootfs": str(tmp_path)}
    with pytest.raises(errors.InvalidArgument, match="--external-rootfs"):
        options.parse(given, cpus=1)


def test_a_record_of_before_has_no_limit() -> None:
    record = options.to_record(options.Settings())
    del record["storage_size"]
    assert options.from_record(record).storage_size == 0
