"""What a daemon that serves no Kubernetes has in its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
HEAVY = set("google grpc h11 http isula_cri ssl urllib urllib3 wsproto yaml".split())
"""Packages of the CRI, and what only workers need."""
LISTED = "import sys; import {}; print(*sorted(sys.modules))"


def loaded(code: str) -> set[str]:
    """Modules that ``code`` prints, by their first names."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_daemon_loads_nothing_of_the_cri() -> None:
    found = loaded(LISTED.format("isula_edge.daemon.main"))
    assert "isula_edge" in found
    # the name alone is there, with nothing behind it
    assert HEAVY & found <= {"ssl"}


@pytest.mark.parametrize(
    "module",
    [
        "isula_edge.daemon.cri",
        "isula_edge.daemon.cri_config",
        "isula_edge.network",
        "isula_edge.oci.cdi",
        "isula_edge.pod.namespaces",
        "isula_edge.service.cri_images",
        "isula_edge.service.pods",
        "isula_edge.service.stats",
    ],
)
def test_what_the_cri_needs_of_the_engine_needs_no_cri(module: str) -> None:
    # the daemon keeps out of asyncio what the module alone would load
    assert (HEAVY - {"ssl"}) & loaded(LISTED.format(module)) == set()


OPENED = """
import isula_edge.daemon.main
import asyncio, sys
from isula_edge.daemon.cri import CriGate
from isula_edge.daemon.server import Server

async def main():
    gate = CriGate(None, -1)
    server = Server(None, gate.hand_over)
    await server.close()
    await gate.close()

asyncio.run(main())
assert sys.modules["ssl"] is None
print(*sorted(name for name, module in sys.modules.items() if module is not None))
"""


def test_a_gate_that_nobody_passes_loads_nothing() -> None:
    assert HEAVY & loaded(OPENED) == set()


PARTS = """
import sys
sys.path[:0] = ["cri"]
import isula_cri.cri
print(*sorted(sys.modules))
"""


def test_what_streams_and_plugins_need_is_loaded_by_them() -> None:
    pytest.importorskip("grpc")
    found = loaded(PARTS)
    assert {"grpc", "google"} <= found
    assert {"h11", "wsproto"} & found == set()


def test_the_messages_need_no_server() -> None:
    pytest.importorskip("google.protobuf")
    found = loaded(PARTS.replace("isula_cri.cri", "isula_cri.status, isula_cri.container_config"))
    assert "google" in found
    assert {"grpc", "h11", "wsproto"} & found == set()
