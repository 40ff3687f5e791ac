"""From the released files to a bundle that runs."""
