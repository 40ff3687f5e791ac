"""Results as pictures, animations and point cloud files, and in the Rerun viewer."""
