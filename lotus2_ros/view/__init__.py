"""Preview pictures and point cloud files."""
