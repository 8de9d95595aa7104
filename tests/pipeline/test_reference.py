"""docs/recipe.md says what the code says."""

from pathlib import Path

from distilrubert.common.checked_settings import sections_in
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.reference import reference_page

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def fields(section, seen=()):
    for key, field in section.model_fields.items():
        yield section, key, field
        for inner in sections_in(field.annotation):
            if inner not in seen:
                yield from fields(inner, (*seen, inner))


def test_the_committed_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "python -m distilrubert.pipeline.reference > docs/recipe.md"
    )


def test_every_field_has_a_description():
    for section, key, field in fields(Recipe):
        assert field.description, f"{section.__name__}.{key}"
        assert field.description.endswith("."), f"{section.__name__}.{key}"
