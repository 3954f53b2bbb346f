"""Level 4: networks by CNI plugins, specification 0.1.0 to 1.1.0."""
