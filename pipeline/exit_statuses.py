"""The exit statuses of the command line."""

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
# As of a program that SIGPIPE ends.
CLOSED_PIPE = 141
