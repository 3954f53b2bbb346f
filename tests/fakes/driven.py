"""An engine in a process of its own, driven with settings that no option of the client gives.

The process is in a network namespace of its own.  Requests and answers are lines of JSON on
its standard streams; see :class:`Driven` for what can be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.container import staging
from isula_edge.oci.options import Settings, from_record, to_record
from isula_edge.runtime.base import ExecSpec
from isula_edge.service.config import EngineConfig
from isula_edge.service.engine import Engine
from tests.rig import NetworkNamespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Answers", "Driven", "EngineFailure", "serve"]

IMAGE = "busybox:latest"


class EngineFailure(Exception):  # noqa: N818  # it is the engine that erred
    """What the engine raised: ``name`` is the class."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Driven:
    """The engine from outside.  ``folder`` holds its graph, which has busybox."""

    module = "tests.fakes.driven"

    def __init__(self, folder: Path, driver: str = "") -> None:
        self.folder = folder
        self.driver = driver
        self.network = NetworkNamespace()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", self.module, str(self.folder), self.driver]
        with open(self.folder / "engine.log", "a") as log:
            return subprocess.Popen(
                [*self.network.prefix, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, what: str, **given: Any) -> Any:
        """The answer; raises :class:`EngineFailure`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"what": what, **given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, (self.folder / "engine.log").read_text()[-4000:]
        answer = json.loads(line)
        if "error" in answer:
            raise EngineFailure(*answer["error"])
        return answer["value"]

    def create(self, settings: Settings, script: str, runtime: str, pod: str = "") -> str:
        """A container's id."""
        record = to_record(settings)
        found: str = self.ask("create", settings=record, script=script, runtime=runtime, pod=pod)
        return found

    def start(self, settings: Settings, script: str, runtime: str, pod: str = "") -> str:
        """The id of a container that was started."""
        found = self.create(settings, script, runtime, pod)
        self.ask("start", id=found)
        return found

    def output(self, settings: Settings, script: str, runtime: str, pod: str = "") -> list[str]:
        """Lines that a container wrote until it ended, without those that it starts with."""
        found = self.start(settings, script, runtime, pod)
        lines: list[str] = self.ask("output", id=found)
        self.ask("remove", id=found)
        return lines

    def exec(self, container: str, script: str, **given: Any) -> tuple[int, list[str]]:
        """Exit code and lines of output."""
        code, text = self.ask("exec", id=container, script=script, **given)
        return code, text.replace("\r", "").splitlines()

    def crash(self) -> None:
        """Ends it as a crash does, and starts it again."""
        self.process.kill()
        self._close()
        self.process = self._start()

    def _close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self.process.wait()

    def close(self) -> None:
        """Removes containers and ends the engine."""
        try:
            self.ask("clear")
        finally:
            self._close()
            self.network.remove()


class Answers:
    """The engine from inside; every public method answers a request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def image(self) -> dict[str, Any]:
        image = self._engine.images.store.get(IMAGE)
        return {"id": image.id, "layers": list(image.chain_ids)}

    async def features(self) -> dict[str, Any]:
        return asdict(staging.features(self._engine.layers.driver))

    async def chains(self) -> list[str]:
        return sorted(self._engine.table.chains())

    async def discard(self) -> bool:
        return await self._engine.images.discard(self._engine.images.store.get(IMAGE))

    async def create(self, settings: dict[str, Any], script: str, runtime: str, pod: str) -> str:
        container = await self._engine.containers.create_from(
            from_record(settings),
            image=IMAGE,
            command=["sh", "-c", script],
            runtime=runtime,
            pod=pod,
        )
        return container.id

    async def start(self, key: str) -> None:
        await self._engine.containers.start(self._engine.table.get(key))

    async def pid(self, key: str) -> int:
        return self._engine.table.get(key).state.pid

    async def output(self, key: str) -> list[str]:
        container = self._engine.table.get(key)
        await self._engine.containers.wait(container)
        return await self.log(key)

    async def log(self, key: str) -> list[str]:
        path = self._engine.bundles.log_path(self._engine.table.get(key))
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return [line.split(" ", 3)[3].rstrip("\n") for line in file if line.count(" ") > 2]

    async def exec(
        self,
        key: str,
        script: str,
        uid: int = 0,
        gid: int = 0,
        groups: tuple[int, ...] = (),
        terminal: bool = False,
    ) -> tuple[int, str]:
        argv = ["sh", "-c", script]
        spec = ExecSpec(argv, ["PATH=/bin"], "/", uid, gid, tuple(groups), terminal)
        running, ended = await self._engine.life.exec(self._engine.table.get(key), spec)
        code = await ended
        text = b""
        for fd in (running.stdout, running.stderr, running.master):
            if fd >= 0:
                # a terminal whose other end is closed gives an error
                with contextlib.suppress(OSError):
                    while chunk := os.read(fd, 65536):
                        text += chunk
                os.close(fd)
        return code, text.decode()

    async def wait(self, key: str) -> int:
        return await self._engine.containers.wait(self._engine.table.get(key))

    async def kill(self, key: str, name: str) -> None:
        await self._engine.containers.kill(self._engine.table.get(key), name)

    async def reopen(self, key: str) -> None:
        await self._engine.life.reopen_log(self._engine.table.get(key))

    async def described(self, key: str) -> dict[str, Any]:
        return self._engine.bundles.load(self._engine.table.get(key)).spec

    async def stop(self, key: str) -> None:
        await self._engine.containers.stop(self._engine.table.get(key), 0, force=True)

    async def remove(self, key: str) -> None:
        await self._engine.containers.remove(self._engine.table.get(key), force=True)

    async def clear(self) -> None:
        for container in self._engine.table:
            await self._engine.containers.remove(container, force=True)


async def serve(folder: str, driver: str, answers: type[Answers] = Answers) -> None:
    """Answers requests until standard input ends."""
    config = EngineConfig(
        graph=f"{folder}/graph",
        state=f"{folder}/state",
        storage_driver=driver,
        cgroup_parent="/isula-tests",
    )
    engine = await Engine.open(config)
    asked = answers(engine)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        given = json.loads(line)
        call: Callable[..., Any] = getattr(asked, given.pop("what"))
        given = {("key" if name == "id" else name): value for name, value in given.items()}
        try:
            answer = {"value": await call(**given)}
        except (errors.EngineError, OSError) as error:
            answer = {"error": [type(error).__name__, str(error)]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
