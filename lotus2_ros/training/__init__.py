"""Training of the bundled model from nothing, on procedural scenes."""
