"""Names of images: parts, stored name, full name, and what is refused."""

from __future__ import annotations

import pytest

from isula_edge import errors
from isula_edge.image.reference import parse, parse_tag

DIGEST = "sha256:" + "a" * 64

NAMES = [
    # typed, host, path at the registry, stored name, full name
    ("busybox", "", "library/busybox", "busybox:latest", "docker.io/library/busybox:latest"),
    ("busybox:1.36", "", "library/busybox", "busybox:1.36", "docker.io/library/busybox:1.36"),
    ("library/busybox", "", "library/busybox", "busybox:latest",
     "docker.io/library/busybox:latest"),
    ("a/b", "", "a/b", "a/b:latest", "docker.io/a/b:latest"),
    ("docker.io/busybox", "docker.io", "library/busybox", "busybox:latest",
     "docker.io/library/busybox:latest"),
    ("index.docker.io/a/b:1", "docker.io", "a/b", "a/b:1", "docker.io/a/b:1"),
    ("quay.io/library/x", "quay.io", "library/x", "quay.io/library/x:latest",
     "quay.io/library/x:latest"),
    ("localhost/x", "localhost", "x", "localhost/x:latest", "localhost/x:latest"),
    ("h:5000/x:2", "h:5000", "x", "h:5000/x:2", "h:5000/x:2"),
    ("[::1]:5000/x", "[::1]:5000", "x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
    ("host:5000", "", "library/host", "host:5000", "docker.io/library/host:5000"),
    (f"x@{DIGEST}", "", "library/x", f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
    (f"x:1@{DIGEST}", "", "library/x", f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
    ("a__b/c.d-e--f", "", "a__b/c.d-e--f", "a__b/c.d-e--f:latest",
     "docker.io/a__b/c.d-e--f:latest"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "host", "path", "familiar", "full"), NAMES)
def test_parts_of_a_name(typed: str, host: str, path: str, familiar: str, full: str) -> None:
    found = parse(typed)
    assert (found.host, found.path, found.familiar, found.full) == (host, path, familiar, full)


@pytest.mark.parametrize(
    "typed",
    [
        "", "k~k", "Busybox", "a//b", "/a", "a/", "a:", "a:b:c", "-a", "a@", "a@sha256:short",
        f"a@{DIGEST}@{DIGEST}", "a" * 256, "b" * 64, "a b", "a\n", "a:" + "t" * 129,
        "host_.com/a", "h.io:port/a", "../a", "a/../b", "a@md5:xyz", "ä",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="Invalid image name"):
        parse(typed)


def test_a_stored_name_means_itself() -> None:
    for typed, *_ in NAMES:
        stored = parse(typed).familiar
        assert parse(stored).familiar == stored


def test_docker_hub_is_contacted_by_its_own_name() -> None:
    assert parse("docker.io/a").contact == "registry-1.docker.io"
    assert parse("quay.io/a").contact == "quay.io"
    assert parse("a").contact == ""


def test_a_digest_is_asked_for_before_a_tag() -> None:
    assert parse(f"x:1@{DIGEST}").wanted == DIGEST
    assert parse("x:1").wanted == "1"
    assert parse("x").with_digest(DIGEST) == f"x@{DIGEST}"


def test_a_name_to_give_has_no_digest() -> None:
    assert parse_tag("x:1").familiar == "x:1"
    with pytest.raises(errors.InvalidArgument):
        parse_tag(f"x@{DIGEST}")
