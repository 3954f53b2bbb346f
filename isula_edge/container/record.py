"""One container as the engine remembers it."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import Any

from isula_edge.oci.options import Settings, from_record, to_record
from isula_edge.sys.process import Identity
from isula_edge.types import ChainId, ContainerId, ImageId

__all__ = ["Container", "State", "Status"]


class Status(enum.StrEnum):
    """States of a container: OCI's, in iSulad's words, plus paused."""

    CREATED = "inited"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(slots=True)
class State:
    """What changes in a container's life; times are ns since 1970 UTC, 0 = never."""

    status: Status = Status.CREATED
    pid: int = 0
    start_ticks: int = 0
    boot: str = ""
    exit_code: int = 0
    error: str = ""
    started_ns: int = 0
    finished_ns: int = 0
    oom_killed: bool = False
    manually_stopped: bool = False
    restart_count: int = 0

    def init(self) -> Identity:
        """The container's init process."""
        return Identity(self.pid, self.start_ticks, self.boot)


@dataclass(slots=True)
class Container:
    """A container.  ``image_config`` is the ``config`` object of its image (may be empty).

    One of a pod has the pod's id in ``pod`` and in ``cri`` what the CRI says of it.
    """

    id: ContainerId
    name: str
    created_ns: int
    image: str
    image_id: ImageId
    image_config: dict[str, Any]
    chain_ids: list[ChainId]
    runtime: str
    args: list[str]
    settings: Settings
    state: State = field(default_factory=State)
    pod: str = ""
    cri: dict[str, Any] = field(default_factory=dict)
    # what follows lives only in memory
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    removing: bool = False
    restarting: bool = False
    stop_deadline: asyncio.Event = field(default_factory=asyncio.Event)
    execs: dict[str, int] = field(default_factory=dict)
    user_ids: tuple[int, int, tuple[int, ...]] | None = None

    @property
    def running(self) -> bool:
        """Whether it has a process now."""
        return self.state.status in (Status.RUNNING, Status.PAUSED, Status.STARTING)

    @property
    def layers(self) -> list[ChainId]:
        """Chain ids of every layer that it needs, those of image volumes too."""
        volumes = (layer for mount in self.settings.mounts for layer in mount.layers)
        return [*self.chain_ids, *map(ChainId, volumes)]

    @property
    def images(self) -> list[ImageId]:
        """Ids of the images that it uses: its own and those of volumes."""
        volumes = (mount.image for mount in self.settings.mounts if mount.image)
        return [self.image_id, *map(ImageId, volumes)]

    def to_record(self) -> dict[str, Any]:
        """The payload of its record."""
        state = {
            name: getattr(self.state, name)
            for name in State.__dataclass_fields__  # slots: no __dict__
        }
        state["status"] = str(self.state.status)
        return {
            "id": self.id,
            "name": self.name,
            "created_ns": self.created_ns,
            "image": self.image,
            "image_id": self.image_id,
            "image_config": self.image_config,
            "chain_ids": self.chain_ids,
            "runtime": self.runtime,
            "args": self.args,
            "settings": to_record(self.settings),
            "state": state,
            "pod": self.pod,
            "cri": self.cri,
        }

    @classmethod
    def from_record(cls, data: dict[str, Any]) -> Container:
        """The container that :meth:`to_record` described."""
        state = dict(data["state"])
        state["status"] = Status(state["status"])
        return cls(
            ContainerId(data["id"]),
            data["name"],
            data["created_ns"],
            data["image"],
            ImageId(data["image_id"]),
            data["image_config"],
            [ChainId(chain) for chain in data["chain_ids"]],
            data["runtime"],
            list(data["args"]),
            from_record(data["settings"]),
            State(**state),
            data.get("pod", ""),
            data.get("cri", {}),
        )
