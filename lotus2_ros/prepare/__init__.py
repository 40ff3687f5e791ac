"""Making bundles from released or trained models."""
