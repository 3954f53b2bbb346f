"""Running the plugins of one network, in order or in reverse (specification, section 3)."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from isula_edge import errors
from isula_edge.network import result, versions
from isula_edge.network.config import capabilities_of, flag
from isula_edge.network.plugin import (
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    UNKNOWN_CONTAINER,
    Call,
    PluginFailed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isula_edge.network.cache import Entry
    from isula_edge.network.config import NetworkConf
    from isula_edge.network.plugin import Plugins

__all__ = ["Chain"]

log = logging.getLogger(__name__)


class Chain:
    """The operations on an attachment or a network, each a run of its plugins."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def ready(self, network: NetworkConf) -> None:
        """Raises FailedPrecondition when a plugin of ``network`` is missing."""
        for plugin in network.plugins:
            self._plugins.find(plugin["type"])

    async def version(self, network: NetworkConf) -> str:
        """The newest version that the network allows and all its plugins speak.

        Plugins are asked only when there is a choice; when none fits the newest is taken, and
        the plugin that does not speak it says so.
        """
        if len(network.versions) > 1:
            spoken = [await self._plugins.supported(p["type"]) for p in network.plugins]
            for version in reversed(network.versions):
                if all(version in supported for supported in spoken):
                    return version
        return network.versions[-1]

    async def add(self, entry: Entry) -> dict[str, Any]:
        """The result of the last plugin; raises EngineError of the one that failed."""
        previous: dict[str, Any] | None = None
        for plugin in entry.document["plugins"]:
            conf = _request(entry, plugin, previous)
            previous = await self._plugins.add(conf, _call("ADD", entry, entry.netns))
        return previous or {}

    async def delete(self, entry: Entry) -> None:
        """Undoes an attachment, last plugin first; what is gone already is fine.

        A plugin that fails does not keep the others from their work: raises the first error.
        """
        first: errors.EngineError | None = None
        previous = _previous(entry)
        call = _call("DEL", entry, entry.netns if _is_namespace(entry.netns) else "")
        harmless = {UNKNOWN_CONTAINER}
        if entry.result is None:
            # who does not speak the version has refused the ADD as well
            harmless.add(INCOMPATIBLE_VERSION)
        if not call.netns:
            # a plugin that can do nothing without the namespace has nothing to do
            harmless.add(INVALID_ENVIRONMENT)
        for plugin in reversed(entry.document["plugins"]):
            try:
                await self._plugins.run(_request(entry, plugin, previous), call)
            except errors.EngineError as error:
                if isinstance(error, PluginFailed) and error.cni_code in harmless:
                    log.info("network %s of %s: %s", entry.network, entry.container_id, error)
                    continue
                if first is not None:
                    log.warning("network %s of %s: %s", entry.network, entry.container_id, error)
                first = first or error
        if first is not None:
            raise first

    async def check(self, entry: Entry) -> None:
        """Raises EngineError when an attachment is not as it was made."""
        document = entry.document
        if not versions.at_least(document["cniVersion"], "0.4.0") or flag(document, "disableCheck"):
            return
        for plugin in document["plugins"]:
            conf = _request(entry, plugin, _previous(entry))
            await self._plugins.run(conf, _call("CHECK", entry, entry.netns))

    async def status(self, network: NetworkConf) -> None:
        """Raises EngineError when a plugin says that it cannot serve an ADD (CNI 1.1)."""
        self.ready(network)
        version = await self.version(network)
        if not versions.at_least(version, "1.1.0"):
            return
        for plugin in network.plugins:
            conf = {**plugin, "name": network.name, "cniVersion": version}
            try:
                await self._plugins.run(conf, Call("STATUS"))
            except PluginFailed as error:
                # a plugin that takes 1.1 for 1.0 does not know the command
                if error.cni_code != INVALID_ENVIRONMENT:
                    raise

    async def collect(self, network: NetworkConf, valid: Sequence[Entry]) -> None:
        """Has plugins forget all attachments but ``valid`` (GC of CNI 1.1); failures are logged."""
        version = await self.version(network)
        if network.disable_gc or not versions.at_least(version, "1.1.0"):
            return
        pairs = [{"containerID": entry.container_id, "ifname": entry.ifname} for entry in valid]
        # the second is what the first text of 1.1 called it
        keys = {"cni.dev/valid-attachments": pairs, "cni.dev/attachments": pairs}
        for plugin in network.plugins:
            conf = {**plugin, "name": network.name, "cniVersion": version, **keys}
            try:
                await self._plugins.run(conf, Call("GC"))
            except errors.EngineError as error:
                log.warning("collecting garbage of network %s: %s", network.name, error)


def _call(command: str, entry: Entry, netns: str) -> Call:
    return Call(command, entry.container_id, netns, entry.ifname, entry.args)


def _request(
    entry: Entry, plugin: dict[str, Any], previous: dict[str, Any] | None
) -> dict[str, Any]:
    """What a plugin reads: its configuration, and what the engine adds to it."""
    conf = {
        **plugin,
        "name": entry.network,
        "cniVersion": entry.document["cniVersion"],
    }
    given = {
        name: entry.capabilities[name]
        for name in capabilities_of(plugin)
        if name in entry.capabilities
    }
    if given:
        conf["runtimeConfig"] = given
    if previous is not None:
        conf["prevResult"] = previous
    return conf


def _previous(entry: Entry) -> dict[str, Any] | None:
    """The kept result as the network's version has it: DEL has one since 0.4.0."""
    version = entry.document["cniVersion"]
    if entry.result is None or not versions.at_least(version, "0.4.0"):
        return None
    return result.convert(entry.result, version)


def _is_namespace(path: str) -> bool:
    """Whether ``path`` is a namespace still, not what a bind mount has left."""
    try:
        return bool(path) and os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False
