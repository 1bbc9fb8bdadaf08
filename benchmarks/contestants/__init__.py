"""One file for each contestant: `prepare` where it needs one, `publish` and `consume`."""
