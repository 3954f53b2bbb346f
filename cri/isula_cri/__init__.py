"""The Container Runtime Interface of Kubernetes: not served by this version.

The package is here so that its name is taken; nothing of the engine imports it.
"""
