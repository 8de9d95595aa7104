"""The one kind of exception for a user's mistake, and text that is safe for a terminal."""


class UserError(Exception):
    """A mistake that the user can put right.

    The message is a single line: where (field or path), what was found, what is allowed. The command
    line prints it on standard error and exits with status 2; a library caller catches it by its type.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def printable(text: str) -> str:
    """`text` with control characters written as escapes, so that text from elsewhere cannot control the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
