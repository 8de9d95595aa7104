"""The base of every configuration section of a recipe."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused, every field described with its unit.

    Each room defines its own sections, so that it can be driven alone; the recipe only puts them together,
    and the reference page of the documentation is made from the descriptions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
