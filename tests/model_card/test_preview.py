import re
from pathlib import Path

import pytest

from distilrubert.common.errors import UserError
from distilrubert.model_card.card import write_card
from distilrubert.model_card.preview import write_preview


def test_preview_lies_beside_the_repository_and_needs_no_network(run_folder: Path) -> None:
    write_card(run_folder)
    published = set((run_folder / "hub").rglob("*"))
    page = write_preview(run_folder / "hub")
    assert page.parent == run_folder
    assert set((run_folder / "hub").rglob("*")) == published
    html = page.read_text(encoding="utf-8")
    (base,) = re.findall(r'<base href="([^"]+)">', html)
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(pictures) == 3
    assert all((page.parent / base / picture).is_file() for picture in pictures)
    assert not re.search(r'(src|<link[^>]*href)="http', html)


def test_preview_shows_tables_and_front_matter(run_folder: Path) -> None:
    write_card(run_folder)
    html = write_preview(run_folder / "hub").read_text(encoding="utf-8")
    assert html.count("<table>") == 5
    assert "FactRuEval | NER: span F1" in html
    assert "<dt>license</dt><dd>apache-2.0</dd>" in html


def test_html_in_a_card_is_text(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "README.md").write_text("---\ntags:\n- <b>x</b>\n---\n\n<script>alert(1)</script>\n", encoding="utf-8")
    html = write_preview(hub).read_text(encoding="utf-8")
    assert "<script>" not in html
    assert "<b>x" not in html


def test_no_card(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"README.md: cannot be read as a model card"):
        write_preview(tmp_path)
    assert not (tmp_path.parent / "card-preview.html").exists()
