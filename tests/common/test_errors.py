from distilrubert.common.errors import UserError


def test_a_message_is_always_one_line() -> None:
    assert str(UserError("corpus.path:\n  no\tsuch   file\n")) == "corpus.path: no such file"
