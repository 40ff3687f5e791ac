"""``lotus2 doctor``: lists of checks of the machine, of a running graph and of a recording."""
