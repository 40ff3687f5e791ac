#!/bin/bash
# Runs a command with ROS and the package in the environment.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /opt/lotus2/local_setup.bash
exec "$@"
