"""The card as a web page on disk, to look at it before it is published."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_text


def write_preview(hub_folder: Path) -> Path:
    """Write ``card-preview.html`` beside a model repository's folder, not into it, since all in it is published.

    Returns:
        The page's path; a browser opens it without a network.

    Raises:
        UserError: if the folder holds no card or the page cannot be written.
    """
    path = hub_folder / "README.md"
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a model card: {error}") from error
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("preview.html.jinja").render(
        base=quote(hub_folder.name) + "/",
        name=hub_folder.resolve().parent.name,
        metadata=_summary(card),
        # Raw HTML in a card is shown as text: the page must be safe to open whatever a recipe says.
        body=MarkdownIt("commonmark", {"html": False}).enable("table").render(card.text),
    )
    preview = hub_folder.parent / "card-preview.html"
    write_text(preview, page)
    return preview


def _summary(card: ModelCard) -> list[tuple[str, str]]:
    """The front matter, a line for each key."""
    values: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    return [
        (key, value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True, sort_keys=False).strip())
        for key, value in values.items()
    ]
