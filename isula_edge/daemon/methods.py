"""The methods of the wire, each a few lines over :mod:`isula_edge.service`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.service import check, disk, inspect, prune, system
from isula_edge.service.containers import size_of
from isula_edge.service.platforms import wanted
from isula_edge.sys import fds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from isula_edge.container.record import Container
    from isula_edge.container.streams import Attachment
    from isula_edge.daemon.server import Session
    from isula_edge.service.engine import Engine

    Params = dict[str, Any]
    Method = Callable[[Engine, Params, Session], Awaitable[Params]]

__all__ = ["METHODS", "call"]

_AUTH = ("username", "password", "identity_token", "registry_token", "server_address")


async def call(engine: Engine, method: str, params: Params, session: Session) -> Params:
    """The result of a method; Unimplemented for one that there is not."""
    found = METHODS.get(method)
    if found is None:
        raise errors.Unimplemented(
            f"the engine has no method {method!r}",
            kind="method",
            ref=method,
            hint="isula is newer than isulad: use the same version of both",
        )
    return await found(engine, params, session)


def _text(params: Params, name: str, default: str = "") -> str:
    value = params.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise errors.InvalidArgument(f"{name} must be a string", kind="param", ref=name)
    return value


def _number(params: Params, name: str) -> int | None:
    value = params.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise errors.InvalidArgument(f"{name} must be an integer", kind="param", ref=name)
    return value


def _words(params: Params, name: str) -> list[str]:
    value = params.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise errors.InvalidArgument(f"{name} must be a list of strings", kind="param", ref=name)
    return value


def _auth(params: Params) -> dict[str, str]:
    value = params.get("auth") or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise errors.InvalidArgument("auth must be a map of strings", kind="param", ref="auth")
    unknown = value.keys() - set(_AUTH)
    if unknown:
        raise errors.InvalidArgument(
            f"auth has no {', '.join(map(str, unknown))}",
            kind="param",
            ref="auth",
            hint=f"it may have {', '.join(_AUTH)}",
        )
    return value


def _wanted(params: Params) -> dict[str, list[str]]:
    value = params.get("filters") or {}
    if not isinstance(value, dict):
        raise errors.InvalidArgument("filters must be a map", kind="param", ref="filters")
    return {str(key): _words(value, key) for key in value}


# the engine


async def _version(engine: Engine, _params: Params, _session: Session) -> Params:
    return system.version(engine)


async def _info(engine: Engine, _params: Params, _session: Session) -> Params:
    return system.info(engine)


async def _events(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    name = _text(params, "name")
    if name:
        with contextlib.suppress(errors.NotFound):
            name = engine.containers.get(name).id
    async for event in engine.events.read(
        _number(params, "since_ns"), _number(params, "until_ns"), name
    ):
        await session.item(event.to_wire())
    return {}


async def _inspect(engine: Engine, params: Params, _session: Session) -> Params:
    ref, kind = _text(params, "ref"), _text(params, "kind", "any")
    if kind in ("any", "container"):
        try:
            container = engine.containers.get(ref)
            found = inspect.container_object(engine, container)
            return {"kind": "container", "object": found}
        except errors.EngineError:
            if kind == "container":
                raise
    want = wanted(_text(params, "platform"))
    store = engine.images.store
    image = store.get(ref, want) if want and store.candidates(ref) else store.find(ref)
    if image is not None:
        return {"kind": "image", "object": inspect.image_object(engine, image)}
    word = "image" if kind == "image" else "image or container"
    raise errors.NotFound(f"No such {word}:{ref}", kind=word, ref=ref)


async def _df(engine: Engine, _params: Params, session: Session) -> Params:
    session.only_waiting()
    return await disk.df(engine)


async def _prune(engine: Engine, params: Params, _session: Session) -> Params:
    return await prune.prune(engine, everything=bool(params.get("all")), wanted=_wanted(params))


async def _check(engine: Engine, params: Params, session: Session) -> Params:
    repair = bool(params.get("repair"))
    if not repair:
        session.only_waiting()
    checkup = check.Checkup(engine, quick=bool(params.get("quick")), repair=repair)
    return await checkup.run(session.item)


# images


async def _pull(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    ref = _text(params, "ref")
    platform = _text(params, "platform")
    return await engine.images.pull(
        ref, platform, session.item, _auth(params), all_tags=bool(params.get("all_tags"))
    )


async def _search(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    limit = _number(params, "limit")
    term, wanted = _text(params, "term"), _wanted(params)
    return await engine.images.search(term, 25 if limit is None else limit, wanted)


async def _login(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    server, username = _text(params, "server"), _text(params, "username")
    return await engine.images.logins.login(server, username, _text(params, "password"))


async def _logout(engine: Engine, params: Params, _session: Session) -> Params:
    return await engine.images.logins.logout(_text(params, "server"))


async def _load(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    path, tag, kind = _text(params, "path"), _text(params, "tag"), _text(params, "type")
    if path != "-":
        return await engine.images.load(path, tag, kind, session.item)
    return await _with_input(
        session, lambda fd: engine.images.load("", tag, kind, session.item, fd)
    )


async def _import(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    path, ref = _text(params, "path"), _text(params, "ref")
    if path != "-":
        return await engine.images.import_(path, ref, session.item)
    return await _with_input(session, lambda fd: engine.images.import_("", ref, session.item, fd))


async def _save(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    refs, exclude, kind = _words(params, "refs"), _words(params, "exclude"), _text(params, "format")
    platform = _text(params, "platform")
    return await _with_output(
        session, lambda fd: engine.images.save(refs, exclude, kind, fd, platform)
    )


async def _with_output(session: Session, work: Callable[[int], Awaitable[Params]]) -> Params:
    """``work(fd)`` with a descriptor whose data the client gets."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    relay = asyncio.create_task(_relay(session, reader))
    try:
        result = await work(writer)
    except BaseException:
        relay.cancel()
        raise
    finally:
        os.close(writer)
        await asyncio.gather(relay, return_exceptions=True)
    relay.result()
    return result


async def _relay(session: Session, fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while True:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                await fds.readable(fd)
                continue
            if not data:
                return
            await session.out(data)
    finally:
        os.close(fd)


async def _with_input(session: Session, work: Callable[[int], Awaitable[Params]]) -> Params:
    """``work(fd)`` with a descriptor of what the client sends."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    feeder = asyncio.create_task(_feed(session, writer))
    try:
        return await work(reader)
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        os.close(reader)


async def _feed(session: Session, fd: int) -> None:
    try:
        async for kind, value in session.input():
            if kind == "data" and isinstance(value, bytes):
                await fds.write_all(fd, value)
            elif kind == "eof":
                return
    finally:
        os.close(fd)


async def _images(engine: Engine, params: Params, _session: Session) -> Params:
    return {"images": engine.images.list(_wanted(params))}


async def _remove_image(engine: Engine, params: Params, _session: Session) -> Params:
    ref, platform = _text(params, "ref"), _text(params, "platform")
    return await engine.images.remove(ref, force=bool(params.get("force")), platform=platform)


async def _tag(engine: Engine, params: Params, _session: Session) -> Params:
    await engine.images.tag(_text(params, "source"), _text(params, "target"))
    return {}


# emulators


async def _emulators(engine: Engine, _params: Params, _session: Session) -> Params:
    return {"emulators": await asyncio.to_thread(engine.emulators.list)}


async def _install_emulator(engine: Engine, params: Params, _session: Session) -> Params:
    return await engine.emulators.install(_text(params, "arch"), force=bool(params.get("force")))


async def _remove_emulator(engine: Engine, params: Params, _session: Session) -> Params:
    return await engine.emulators.remove(_text(params, "arch"))


# containers


def _check_create(params: Params) -> None:
    _words(params, "command")
    for name in ("image", "name", "runtime", "platform"):
        _text(params, name)
    size_of(params)


async def _create(engine: Engine, params: Params, _session: Session) -> Params:
    _check_create(params)
    container = await engine.containers.create(params)
    return {"id": container.id, "warnings": container.settings.warnings}


async def _start(engine: Engine, params: Params, session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    attachment = await _begin(
        engine, container, session, bool(params.get("attach")), size_of(params)
    )
    if attachment is None:
        return {}
    session.only_waiting()
    stdin = bool(params.get("stdin"))
    return {"exit_code": await engine.containers.relay(container, attachment, session, stdin)}


async def _begin(
    engine: Engine,
    container: Container,
    session: Session,
    attach: bool,
    size: tuple[int, int] | None,
) -> Attachment | None:
    """Starts a container; a client that wants it to end before it has begun gets its will."""
    start = asyncio.ensure_future(engine.containers.start(container, attach=attach, size=size))
    asked = asyncio.ensure_future(session.interrupted.wait())
    waiting: set[asyncio.Future[Any]] = {start, asked}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            await engine.containers.interrupt(container)
        return await start
    except asyncio.CancelledError:
        start.cancel()
        await asyncio.wait({start})
        raise
    finally:
        asked.cancel()


async def _run(engine: Engine, params: Params, session: Session) -> Params:
    _check_create(params)
    containers, detach = engine.containers, bool(params.get("detach"))
    container = await containers.create(params)
    await session.item({"id": container.id, "warnings": container.settings.warnings})
    try:
        attachment = await _begin(
            engine, container, session, not detach, None if detach else size_of(params)
        )
    except BaseException:
        if container.settings.rm:
            with contextlib.suppress(errors.EngineError, OSError):
                await containers.remove(container, force=True)
        raise
    if attachment is None:
        return {"id": container.id}
    session.only_waiting()
    stdin = bool(params.get("stdin"))
    code = await containers.relay(container, attachment, session, stdin)
    return {"id": container.id, "exit_code": code}


async def _attach(engine: Engine, params: Params, session: Session) -> Params:
    size = size_of(params)
    container = engine.containers.get(_text(params, "ref"))
    attachment = engine.containers.attach(container)
    if size is not None and container.settings.tty:
        attachment.resize(*size)
    session.only_waiting()
    stdin = bool(params.get("stdin"))
    return {"exit_code": await engine.containers.relay(container, attachment, session, stdin)}


async def _stop(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    seconds = _number(params, "timeout_s")
    await engine.containers.stop(container, seconds, force=bool(params.get("force")))
    return {}


async def _kill(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    await engine.containers.kill(container, _text(params, "signal", "SIGKILL"))
    return {}


async def _restart(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    await engine.containers.restart(container, _number(params, "timeout_s"))
    return {}


async def _remove(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    await engine.containers.remove(container, force=bool(params.get("force")))
    return {"id": container.id}


async def _pause(engine: Engine, params: Params, _session: Session) -> Params:
    await engine.containers.pause(engine.containers.get(_text(params, "ref")), True)
    return {}


async def _unpause(engine: Engine, params: Params, _session: Session) -> Params:
    await engine.containers.pause(engine.containers.get(_text(params, "ref")), False)
    return {}


async def _rename(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    await engine.containers.rename(container, _text(params, "new_name"))
    return {}


async def _export(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    container = engine.containers.get(_text(params, "ref"))
    return await _with_output(session, lambda fd: engine.containers.export(container, fd))


async def _list(engine: Engine, params: Params, _session: Session) -> Params:
    _number(params, "last")
    return {"containers": engine.containers.list({**params, "filters": _wanted(params)})}


async def _exec(engine: Engine, params: Params, session: Session) -> Params:
    for name in ("argv", "env"):
        _words(params, name)
    for name in ("ref", "user", "workdir"):
        _text(params, name)
    size_of(params)
    session.ends_with_daemon()
    return await engine.containers.exec(params, session)


async def _logs(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    for name in ("tail", "since_ns", "until_ns"):
        _number(params, name)
    return await engine.containers.logs(params, session)


async def _wait(engine: Engine, params: Params, session: Session) -> Params:
    session.only_waiting()
    container = engine.containers.get(_text(params, "ref"))
    return {"exit_code": await engine.containers.wait(container)}


async def _top(engine: Engine, params: Params, _session: Session) -> Params:
    container = engine.containers.get(_text(params, "ref"))
    return {"text": await engine.containers.top(container, _words(params, "args"))}


METHODS: dict[str, Method] = {
    "version": _version,
    "info": _info,
    "events": _events,
    "inspect": _inspect,
    "system.df": _df,
    "system.prune": _prune,
    "system.check": _check,
    "emulator.list": _emulators,
    "emulator.install": _install_emulator,
    "emulator.remove": _remove_emulator,
    "image.pull": _pull,
    "image.search": _search,
    "image.login": _login,
    "image.logout": _logout,
    "image.load": _load,
    "image.import": _import,
    "image.save": _save,
    "image.list": _images,
    "image.remove": _remove_image,
    "image.tag": _tag,
    "container.create": _create,
    "container.start": _start,
    "container.run": _run,
    "container.attach": _attach,
    "container.stop": _stop,
    "container.kill": _kill,
    "container.restart": _restart,
    "container.remove": _remove,
    "container.pause": _pause,
    "container.unpause": _unpause,
    "container.rename": _rename,
    "container.export": _export,
    "container.list": _list,
    "container.exec": _exec,
    "container.logs": _logs,
    "container.wait": _wait,
    "container.top": _top,
}
