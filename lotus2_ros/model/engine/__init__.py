"""Running a model fast on the device at hand."""
