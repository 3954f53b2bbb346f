"""Level 2: programs of a few milliseconds that the engine starts for work in a container.

Each is started by ``python -IS -c "from isula_edge.helper.NAME import main"``, once per use.
Nothing is imported here, and a helper imports the least it can: its imports are what an
``isula exec`` waits for.  No helper stays.
"""
