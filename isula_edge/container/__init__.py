"""Level 5: containers: what they are, their life, their output.

``<graph>/engines/<runtime>/<id>/`` holds one container::

    container.cbor    record (isula_edge.store.schema, kind "container")
    config.json       OCI runtime-spec, rewritten at every start
    console.log       output: time stamp, stream, P or F, text (the k8s-file format)
    hosts, hostname, resolv.conf, mounts/shm

Invariants: a name belongs to one container; the record on disk is written before anybody is
told of a change; a container that is running stays running whatever the daemon does.
"""
