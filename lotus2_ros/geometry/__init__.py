"""Cameras, depth, alignment and normals: maths on torch tensors, any device."""
