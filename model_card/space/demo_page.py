"""Writing the page: what it shows is read from the model's own card and files."""

import base64
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from distilrubert.common.hub_address import repository_url
from distilrubert.common.persistence import atomic_folder, check_output_folder, read_json, write_text
from distilrubert.model_card.space.library import FILES, IMPORTS, WASM
from distilrubert.model_card.space.shown_model import ShownModel, read_model

HERE = Path(__file__).parent
ASSETS = ("page.js", "tasks.js", "style.css")
MODEL_FOLDER, LIBRARY_FOLDER = "model", "library"
OWN_TAG = "distilrubert"
"""The tag by which a Space that this program has made is known."""


@dataclasses.dataclass(frozen=True)
class HubModel:
    """A model on the Hub.

    Attributes:
        repo_id: the repository, OWNER/NAME.
        revision: the commit.
        endpoint: URL of the Hub.
    """

    repo_id: str
    revision: str
    endpoint: str

    @property
    def url(self) -> str:
        """Its web page."""
        return repository_url(self.repo_id, endpoint=self.endpoint)


def write_page(
    folder: Path,
    output: Path,
    published: HubModel | None = None,
    offline_assets: Path | None = None,
    *,
    is_beside: bool = True,
) -> None:
    """Write the page of a model, whole or not at all: a static Space, or what any web server can serve.

    Args:
        folder: the model repository.
        output: the folder to write; one that an earlier page was written to is replaced.
        published: the model on the Hub, which the page names; None if it is not there.
        offline_assets: folder of npm packages from which the library is copied beside the page; None: it comes from a
            CDN, with its checksums.
        is_beside: whether the model's files are copied beside the page; else the page takes them from the Hub.

    Raises:
        UserError: if the page cannot show the model, a file is missing, or the output holds something else.
    """
    model = read_model(folder)
    check_output_folder(output, is_ours=_holds_page(output))
    with atomic_folder(output) as page:
        for name in ASSETS:
            shutil.copyfile(HERE / name, page / name)
        if offline_assets:
            for file in FILES:
                file.copy(offline_assets, page / LIBRARY_FOLDER)
        if is_beside:
            _copy_model(model, page / MODEL_FOLDER)
        source = None if is_beside else published
        html = _html(model, source, published.url if published else None, is_offline=offline_assets is not None)
        write_text(page / "index.html", html)
        write_text(page / "README.md", _space_card(model, published))


def _holds_page(output: Path) -> bool:
    """Whether all that is in a folder is a page and its model."""
    own = {*ASSETS, "index.html", "README.md", MODEL_FOLDER, LIBRARY_FOLDER}
    return (output / "page.js").is_file() and {path.name for path in output.iterdir()} <= own


def _copy_model(model: ShownModel, target: Path) -> None:
    for name in model.files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.folder / name, target / name)


def _html(model: ShownModel, source: HubModel | None, card: str | None, *, is_offline: bool) -> str:
    words = read_json(HERE / "words.json")[model.language]
    where = "./" + LIBRARY_FOLDER + "/"
    urls = {file: where + file.name if is_offline else file.cdn for file in FILES}
    import_map = json.dumps(
        {
            "imports": {name: urls[file] for name, file in IMPORTS.items()},
            "integrity": {urls[file]: file.integrity for file in set(IMPORTS.values())},
        },
        sort_keys=True,
    )
    fill = {"{mask}": model.mask or "", "{name}": model.title}
    page = {
        "language": model.language,
        "task": model.task,
        "mask": model.mask,
        "examples": model.examples,
        "candidates": model.candidates,
        "vectors": model.vectors,
        "model": {
            "id": source.repo_id if source else MODEL_FOLDER,
            "local": source is None,
            "revision": source.revision if source else "main",
            "endpoint": source.endpoint if source else None,
            "base": _base(source),
            "name": model.graph_name,
            "files": model.files,
        },
        "runtime": {"url": urls[WASM], "integrity": WASM.integrity},
        "words": {key: _filled(text, fill) for key, text in words.items() if isinstance(text, str)},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": True}
    return environment.get_template("index.html.jinja").render(
        page=page,
        title=model.title,
        heading=words["headings"][model.task],
        input=_filled(words["inputs"][model.task], fill),
        description=_filled(words["description"], fill),
        import_map=import_map,
        policy="; ".join(_policy(import_map, source, is_offline=is_offline)),
        graph=f"{_base(source)}/{model.graph.path}",
        card=card,
    )


def _base(source: HubModel | None) -> str:
    """What the addresses of the model's files begin with."""
    return f"{source.endpoint}/{source.repo_id}/resolve/{source.revision}" if source else MODEL_FOLDER


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _policy(import_map: str, source: HubModel | None, *, is_offline: bool) -> Iterator[str]:
    """What the page may load, and from where: the browser itself keeps it from sending a text anywhere else."""
    digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    library = [] if is_offline else sorted({file.cdn.rpartition("/")[0] + "/" for file in FILES})
    hosts = ["'self'", *library, *_hosts(source)]
    scripts = ["'self'", f"'sha256-{digest}'", "'wasm-unsafe-eval'", *library]
    yield "default-src 'none'"
    yield f"script-src {' '.join(scripts)}"
    yield f"connect-src {' '.join(hosts)}"
    yield "style-src 'self'"
    yield "img-src 'self' data:"
    yield "base-uri 'none'"
    yield "form-action 'none'"


def _hosts(source: HubModel | None) -> list[str]:
    if source is None:
        return []
    # The public Hub answers with addresses of its storage, which are below these.
    storage = ["https://*.huggingface.co", "https://*.hf.co"] if source.endpoint == "https://huggingface.co" else []
    return [source.endpoint, *storage]


def _space_card(model: ShownModel, published: HubModel | None) -> str:
    """The README of the Space, whose front matter the Hub reads."""
    metadata: dict[str, Any] = {
        "title": model.title,
        "sdk": "static",
        "app_file": "index.html",
        "pinned": False,
        "tags": [OWN_TAG],
    }
    if model.license:
        metadata["license"] = model.license
    if published:
        metadata["models"] = [published.repo_id]
    front_matter = yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False)
    of = f" of [{published.repo_id}]({published.url})" if published else ""
    return (
        f"---\n{front_matter}---\n\nA demo page{of}. The model runs in the visitor's browser, and no text leaves it.\n"
    )
