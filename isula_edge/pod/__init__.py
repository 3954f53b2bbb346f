"""Level 4: pod sandboxes: namespaces without a process, their files and records."""
