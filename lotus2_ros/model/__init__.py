"""Lotus-2 as torch modules: no ROS, no cameras, no files other than checkpoints."""
