"""``python -m lotus2_ros.cli``."""

import sys

from lotus2_ros.cli import main

sys.exit(main())
