"""One frame without ROS: image, camera and reference in, geometry out."""
