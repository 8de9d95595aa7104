"""The exit statuses of the command line."""

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
