"""Training: of the bundled model from nothing, on procedural scenes, and of the real one, on FLUX.1-dev."""
