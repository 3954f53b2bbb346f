"""The Node Resource Interface: plugins that hear of pods and containers, and may change them.

A plugin connects to the socket, or is a program in the plugins' directory that is started
with a connected one.  It registers, is configured, gets all pods and containers, and from
then on what it has subscribed to, one request at a time, in order of the plugins' index.

Source: github.com/containerd/nri (docs, pkg/api, pkg/adaptation).
"""

from isula_cri.nri.adjust import Adjustment, apply
from isula_cri.nri.host import Nri, View
from isula_cri.nri.info import ContainerInfo, PodInfo, Resources, from_settings

__all__ = [
    "Adjustment",
    "ContainerInfo",
    "Nri",
    "PodInfo",
    "Resources",
    "View",
    "apply",
    "from_settings",
]
