"""The models as torch modules, and their checkpoints. Nothing here knows ROS or cameras."""
