"""The one kind of exception for a user's mistake."""


class UserError(Exception):
    """A mistake that the user can put right.

    The message is a single line: where (field or path), what was found, what is allowed. The command
    line prints it on standard error and exits with status 2; a library caller catches it by its type.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
