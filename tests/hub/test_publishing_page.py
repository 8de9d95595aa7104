"""The workflow in docs/publishing.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"


def steps_of(page: str) -> Iterator[dict[str, Any]]:
    for block in re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for job in (yaml.safe_load(block).get("jobs") or {}).values():
            yield from job["steps"]


def test_no_expression_becomes_a_command() -> None:
    """A name of a tag is another's text: put into a command, it could run one beside the token."""
    steps = [step for step in steps_of(PAGE.read_text(encoding="utf-8")) if "run" in step]
    publishing = [step for step in steps if "HF_TOKEN" in step.get("env", {})]
    assert len(publishing) == 1
    assert "publish.py" in publishing[0]["run"]
    for step in steps:
        assert "${{" not in step["run"]
