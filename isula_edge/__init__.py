"""isula-edge: a lean container engine for IoT and edge machines.

The package is empty on purpose: the client's start-up time is part of every
figure a user sees, so importing ``isula_edge`` must cost nothing.
"""
