"""Errors that a command turns into one line, and the first line of the errors of libraries."""

from __future__ import annotations


class RunError(RuntimeError):
    """A command failed although its input was valid. The message says why, in one line or with a log behind it."""


class InputError(ValueError):
    """An input that cannot be used: says in one line what was expected and what came."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, which may go on with details; the name of its class if it has no text."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
