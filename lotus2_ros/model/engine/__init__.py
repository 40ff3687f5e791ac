"""How a model runs on the device at hand."""
