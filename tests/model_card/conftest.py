from pathlib import Path

import pytest

from distilrubert.model_card.inputs import CardInput
from tests.model_card.example_run import card_input, write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> CardInput:
    """What the card of a finished run is made from."""
    return card_input(write_run(tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run directory whose card is not written yet."""
    return write_run(tmp_path / "run")
