"""Streaming of exec, attach and port forwarding to kubelet, kubectl and crictl.

The CRI answers these RPCs with a URL of an HTTP server of ours, where the client upgrades
its connection to SPDY/3.1 or a WebSocket.  Nothing is kept on disk.  What a client has not
read, and what it sent that nobody took, are bounded for every connection.
"""

from isula_cri.streaming.server import Backend, Streaming

__all__ = ["Backend", "Streaming"]
