"""Level 4: the OCI runtime-spec document of a container, from what a user asked for.

Owns no state.  :mod:`isula_edge.oci.options` reads a user's words, :mod:`isula_edge.oci.spec`
makes ``config.json`` of them, the others know users, capabilities and mounts.
"""
