"""Export of a model as ONNX graphs, for runtimes other than torch."""
