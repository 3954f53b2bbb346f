"""Damaged documents: configurations and kept results are used or refused, never an exception."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING

from isula_edge.network.cache import Cache
from isula_edge.network.folder import ConfFolder
from tests.fakes.cni import RESULT
from tests.fakes.mutations import mutations

if TYPE_CHECKING:
    from pathlib import Path

LIST = {
    "cniVersion": "1.0.0",
    "cniVersions": ["0.3.1", "0.4.0", "1.1.0"],
    "name": "pods",
    "disableCheck": False,
    "disableGC": "false",
    "loadOnlyInlinedPlugins": False,
    "plugins": [
        {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.1.0.0/16"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
KEPT = {
    "kind": "cniCacheV1",
    "containerId": "id",
    "config": base64.b64encode(json.dumps(LIST).encode()).decode(),
    "ifName": "eth0",
    "networkName": "pods",
    "netns": "/ns",
    "cniArgs": [["K8S_POD_NAME", "web"]],
    "capabilityArgs": {"portMappings": [{"hostPort": 1}]},
    "isulaEdge": {"owner": "us", "order": 0},
    "result": {"cniVersion": "1.0.0", **RESULT},
}


def test_damaged_configurations(tmp_path: Path) -> None:
    chance = random.Random(3)
    used = 0
    for data in mutations(chance, [json.dumps(LIST).encode()], 1500):
        (tmp_path / "10.conflist").write_bytes(data)
        for network in ConfFolder(str(tmp_path)).networks():
            used += 1
            assert network.capabilities() >= set()
            json.dumps(network.pinned(network.versions[-1]))
    assert 100 < used < 1400


def test_damaged_results(tmp_path: Path) -> None:
    chance = random.Random(4)
    cache = Cache(str(tmp_path))
    (tmp_path / "results").mkdir()
    used = 0
    for data in mutations(chance, [json.dumps(KEPT).encode()], 1500):
        (tmp_path / "results" / "pods-id-eth0").write_bytes(data)
        for entry in cache.of("id") + cache.everything():
            used += 1
            assert not entry.document or entry.document["plugins"]
            cache.save(entry, durable=False)
    assert 200 < used < 2900
