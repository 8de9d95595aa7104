"""Exit statuses of the command line."""

DONE = 0
FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
