"""The error that ends a command with status 1."""


class RunError(RuntimeError):
    """A command failed although its input was valid. The message says why, in one line or with a log behind it."""
