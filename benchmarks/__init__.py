"""ptcr-shaped benchmark of isula beside Docker and Podman: ``python -m benchmarks --help``.

It owns a work folder with everything that the engines write, a network namespace, a mount
namespace and the cgroups named after it; all of them are gone when it ends.

``__main__`` reads flags and ``config``, and becomes ``sandbox``, which ends what is left over;
``sandbox`` runs ``harness``, which starts ``engines`` and times ``operations`` and ``memory``;
``report`` turns the result into a table.

``images`` is another harness: it has engines pull ``image_sets`` from a ``registry``, each on a
``disk`` of its own, and ``watch`` measures them; ``cutting`` cuts connections, and
``image_report`` writes the tables.
"""
