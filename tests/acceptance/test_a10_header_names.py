"""Case A10: registries write header names as they like, and some leave the version out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.fakes.images import FakeLayer, make_image
from tests.fakes.registry import FakeRegistry
from tests.fakes.workers import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("version", [True, False], ids=["version", "no version"])
@pytest.mark.parametrize("case", ["lower", "upper", "mixed"])
def test_a_pull_reads_headers_in_any_case(tmp_path: Path, case: str, version: bool) -> None:
    """Every header that a pull needs comes along: challenge, token, redirect, range."""
    for name in ("layers", "quarantine", "storage/vfs", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    image = make_image([FakeLayer.of({"a": os.urandom(100_000)})], docker=True)
    with FakeRegistry() as registry, FakeRegistry() as storage:
        for fake in (registry, storage):
            fake.faults.header_case = case
            fake.faults.api_version = version
            fake.add("library/busybox", "latest", image)
        registry.faults.auth = "bearer"
        registry.faults.redirect_blobs = storage.url
        registry.faults.statuses = {"/manifests/": [(429, {"Retry-After": "0"})]}
        storage.faults.cut_at = [0.5]
        request = {"op": "pull", "ref": "busybox", "mirrors": [registry.url]}
        with WorkerProcess(request, tmp_path) as worker:
            assert worker.result() == {"ref": "busybox:latest", "id": image.id}
        assert storage.sent_bytes(image.layers[0].digest) == len(image.layers[0].blob)
