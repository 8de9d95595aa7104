"""Checks that every file exists that the card or a configuration file names."""

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote

from distilrubert.conversion.sentence_transformers import NORMALIZE
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement, first_line, problem

MARKDOWN_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
HTML_LINK = re.compile(r"""(?:src|href)=["']([^"']+)["']""")
# Only model files and pictures: a `data.json` in an example is the reader's.
NAMED_ARTEFACT = re.compile(r"(?<![\w./:{*-])([\w./-]+\.(?:onnx|safetensors|xml|png|svg|bib))(?![\w*])")


def check_references(folder: ModelFolder) -> Iterator[Statement]:
    """JSON files can be read, and no named file is missing."""
    for path in folder.ending(".json"):
        yield from _check_json(folder, path)
    if "README.md" in folder:
        yield from _check_card(folder)
    yield from _check_sentence_transformers(folder)
    for path in folder.ending(".png"):
        if not _is_whole_png((folder / path).read_bytes()):
            yield problem(path, "is not a complete PNG image")
    for path in folder.ending(".xml"):
        weights = path.removesuffix(".xml") + ".bin"
        if weights not in folder:
            yield problem(path, f"needs {weights}, which is missing")


def _check_json(folder: ModelFolder, path: str) -> Iterator[Statement]:
    try:
        json.loads((folder / path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, OSError) as error:
        yield problem(path, f"is not JSON: {first_line(error)}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _check_card(folder: ModelFolder) -> Iterator[Statement]:
    text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    links = {
        unquote(link.partition("#")[0]) for pattern in (MARKDOWN_LINK, HTML_LINK) for link in pattern.findall(text)
    }
    for link in sorted(links - {""}):
        if not re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE) and not _is_there(
            folder, link.removeprefix("./")
        ):
            yield problem("README.md", f"links to {link}, which is missing")
    rest = re.sub(r"\w+://\S+", "", HTML_LINK.sub("", MARKDOWN_LINK.sub("", text)))
    for name in sorted(set(NAMED_ARTEFACT.findall(rest))):
        if not any(path == name or path.endswith(f"/{name}") for path in folder.paths):
            yield problem("README.md", f"names {name}, which is missing")


def _is_there(folder: ModelFolder, link: str) -> bool:
    return link in folder or any(path.startswith(link.rstrip("/") + "/") for path in folder.paths)


def _is_whole_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[-8:-4] == b"IEND"


def _check_sentence_transformers(folder: ModelFolder) -> Iterator[Statement]:
    modules = folder.json("modules.json") or []
    for module in modules if isinstance(modules, list) else []:
        path = module.get("path", "") if isinstance(module, dict) else ""
        if path and module.get("type") == NORMALIZE["type"]:
            continue
        if path and f"{path}/config.json" not in folder:
            yield problem("modules.json", f"names the module {path}, but {path}/config.json is missing")
            continue
        width = folder.json_object(f"{path}/config.json").get("word_embedding_dimension") if path else None
        dim = folder.json_object("config.json").get("dim")
        if width is not None and dim is not None and width != dim:
            yield problem(f"{path}/config.json", f"pools vectors of {width} values, but config.json states {dim}")
