"""What the tests of staged mounts and of user namespaces have in common."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from isula_edge.sys import mounts
from tests.fakes.driven import Driven
from tests.rig import Engine, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["driven", "shared_mount"]

D = TypeVar("D", bound=Driven)


@contextlib.contextmanager
def driven(images: Path, driver: str, kind: type[D]) -> Iterator[D]:
    """An engine with busybox below a directory that any user may search, as /run is."""
    with tempfile.TemporaryDirectory(prefix="isula-") as name:
        os.chmod(name, 0o711)
        folder = Path(name)
        with loaded(Engine(folder, "--storage-driver", driver), images):
            pass
        engine = kind(folder, driver)
        try:
            yield engine
        finally:
            engine.close()
            assert mounts.below(name) == []


@contextlib.contextmanager
def shared_mount(folder: Path) -> Iterator[Path]:
    """A tmpfs whose mounts others see."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tests", folder], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", folder], check=True)
        yield folder
    finally:
        mounts.detach(str(folder))
