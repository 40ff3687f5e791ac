"""Pictures and clouds to look at."""
