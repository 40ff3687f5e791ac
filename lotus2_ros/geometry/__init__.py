"""Cameras, lenses, depth, normals and clouds: pure functions on torch tensors on any device."""
