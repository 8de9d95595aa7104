"""What the documentation tells the reader to type is there, and is accepted by the program that it names."""

import ast
import importlib.util
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.pipeline.options import COMMANDS, parser_for

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Packages of others that only the environment of tests/clients has, whose tests run what the documentation shows of
# them, and a peer of the benchmarks.
CLIENTS = {"langchain_huggingface", "llama_index", "model2vec"}
# Programs of others and words of the shell: what they accept is theirs to test.
OTHERS = {"hf", "pip", "npm", "git", "accelerate", "export", "cd", "grep", "pre-commit", "srun", "if"}


@dataclass(frozen=True)
class Snippet:
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text.splitlines()[0]}"


def snippets(language: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.finditer(text):
            if block.group(2) == language:
                line = text.count("\n", 0, block.start()) + 1
                body = re.sub(rf"^{block.group(1)}", "", block.group(3), flags=re.MULTILINE)
                found.append(Snippet(f"{page.name}:{line}", body))
    return found


def commands() -> list[Snippet]:
    found = []
    for block in snippets("bash"):
        # The text of a here-document is no command.
        text = re.sub(r"<<'(\w+)'.*?^\1$", "", block.text, flags=re.MULTILINE | re.DOTALL).replace("\\\n", " ")
        found += [Snippet(block.place, line) for line in text.splitlines() if line.split("#")[0].strip()]
    return found


def accepted(program: str, arguments: list[str]) -> bool:
    options = parser_for(program).parse_args(arguments)
    recipe = getattr(options, "recipe_path", None)
    # What `distilrubert init` writes is not there before.
    return recipe is None or str(recipe).isupper() or str(recipe) == "recipe.yaml" or (ROOT / recipe).is_file()


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_is_accepted_by_its_program(command: Snippet) -> None:
    words = shlex.split(command.text, comments=True)
    while re.fullmatch(r"\w+=.*", words[0]):
        del words[0]
    program, *arguments = words
    if program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
    elif "publish.py" in words:
        assert accepted("publish.py", words[words.index("publish.py") + 1 :])
    elif "distilrubert" in (names := [Path(word).name for word in words]):
        # Behind a launcher, or first.
        assert accepted("distilrubert", words[names.index("distilrubert") + 1 :])
    elif program == "pytest":
        assert all((ROOT / path).exists() for path in arguments if not path.startswith("-"))
    elif Path(program).name == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1])
    elif Path(program).name == "python" and arguments[0] != "-":
        script = (ROOT / arguments[0]).read_text(encoding="utf-8")
        assert all(f'"{option}"' in script for option in arguments[1:] if option.startswith("--"))
    else:
        assert program in OTHERS | {"python"}, f"{program} is unknown to this test"


@pytest.mark.parametrize(
    "snippet",
    [
        # The packages of extras are not installed everywhere.
        pytest.param(
            snippet,
            id=str(snippet),
            marks=pytest.mark.export
            if {"optimum", "sentence_transformers"} & set(re.findall(r"\w+", snippet.text))
            else (),
        )
        for snippet in snippets("python")
        if not CLIENTS & set(re.findall(r"\w+", snippet.text))
    ],
)
def test_what_a_python_snippet_imports_is_there(snippet: Snippet) -> None:
    for node in ast.walk(ast.parse(snippet.text)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, name.name) for name in node.names)


def test_the_task_to_copy_is_one() -> None:
    (snippet,) = (snippet for snippet in snippets("yaml") if snippet.place.startswith("evaluation.md"))
    TaskDefinition.model_validate(yaml.safe_load(snippet.text), context={"folder": ROOT})


@pytest.mark.parametrize("name", KINDS)
def test_the_table_of_kinds_of_tasks_is_complete(name: str) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", page, re.M)
    metrics = () if "the same" in row else KINDS[name].metrics
    assert all(f"`{word}`" in row for word in (*KINDS[name].columns, *metrics))


def test_the_hours_on_gpus_are_what_their_snippet_computes(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = (snippet for snippet in snippets("python") if snippet.place.startswith("distributed.md"))
    exec(snippet.text, {})
    computed = re.findall(
        r"^(\w+): ([\d.]+) h, (\d+) GPU hours, \d+, masked ([\d.]+) h$", capsys.readouterr().out, re.M
    )
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\w+) SXM2? \| [^|]* \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", page, re.M)
    assert len(table) == 3
    assert computed == table


LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tables_are_those_of_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    document = importlib.import_module("document")
    for page in document.PAGES:
        text = page.read_text(encoding="utf-8")
        assert document.with_tables(text) == text, f"{page.name}: run python benchmarks/document.py"


def test_the_tables_of_the_readme_have_every_command_and_every_recipe() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`distilrubert ([a-z]+) ", row.split("|")[1])]
    assert sorted(named) == sorted(COMMANDS)
    linked = [name for row in rows for name in re.findall(r"\]\(recipes/([\w-]+)\.yaml\)", row)]
    assert sorted(linked) == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
