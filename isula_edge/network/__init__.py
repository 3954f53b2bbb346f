"""Level 4: networks by CNI plugins, specification 0.1.0 to 1.1.0.

Configurations come from a directory, plugins are programs, and what they answered is kept in
``<cache dir>/results`` as CNI's own library does.  One operation at a time is done for a
container.  Whatever a plugin prints, the caller gets a result or an EngineError.
"""

from __future__ import annotations

from isula_edge.network.config import NetworkConf
from isula_edge.network.network import Interface, Network, NetworkResult
from isula_edge.network.plugin import PluginFailed, end_plugins
from isula_edge.network.request import Attach, Choice, Dns, PortMapping

__all__ = [
    "Attach",
    "Choice",
    "Dns",
    "Interface",
    "Network",
    "NetworkConf",
    "NetworkResult",
    "PluginFailed",
    "PortMapping",
    "end_plugins",
]
