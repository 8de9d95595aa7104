"""Whether a Space that exists is the page of the model, which a new page may replace."""

from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.model_card.front_matter import split_card
from distilrubert.model_card.space.demo_page import OWN_TAG
from distilrubert.pipeline.hub.connection import HubConnection
from distilrubert.pipeline.hub.remote import read_commits, read_text, read_tree

# What the Hub makes of a new static Space.
FIRST_COMMIT = "initial commit"
FIRST_FILES = {".gitattributes", "README.md", "index.html", "style.css"}


def check_own_space(connection: HubConnection, commit: str) -> None:
    """Refuse a Space that somebody has filled with something else.

    One with the Hub's first commit alone holds what the Hub puts into every new Space: the page has not come yet.

    Raises:
        UserError: if it is not a page of this model.
    """
    if _is_new(connection, commit):
        return
    metadata = _front_matter(connection, commit)
    if OWN_TAG not in _listed(metadata.get("tags")) or connection.repo_id not in _listed(metadata.get("models")):
        raise UserError(
            f"publish.space: {connection.title} exists and is not a page of this model that distilrubert has made; "
            "rename it on the Hub, or publish without --space"
        )


def _is_new(connection: HubConnection, commit: str) -> bool:
    """Whether nothing has come after the Hub's own commit; a history that was squashed has one commit, too."""
    first, *others = read_commits(connection, commit)
    return not others and first.title == FIRST_COMMIT and read_tree(connection, commit).keys() <= FIRST_FILES


def _front_matter(connection: HubConnection, commit: str) -> dict[str, Any]:
    if "README.md" not in read_tree(connection, commit):
        return {}
    try:
        return split_card(read_text(connection, commit, "README.md"))[0]
    except ValueError:
        return {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
