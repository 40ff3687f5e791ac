"""Speed and accuracy, each one command that prints a table."""
