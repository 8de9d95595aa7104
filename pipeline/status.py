"""Exit statuses of the command line."""

DONE = 0
USER_ERROR = 2
INTERRUPTED = 130
