import base64
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from distilrubert.common.errors import UserError
from distilrubert.model_card.space import demo_page
from distilrubert.model_card.space.demo_page import HubModel, write_page
from distilrubert.model_card.space.library import FILES, LibraryFile, integrity_of
from distilrubert.model_card.space.shown_model import TASKS, read_model

ROOT = Path(__file__).parents[3]
SOURCE = HubModel("me/tiny", "0" * 40, "https://huggingface.co")
CARD: dict[str, Any] = {
    "language": ["ru", "en"],
    "license": "mit",
    "pipeline_tag": "fill-mask",
    "widget": [{"text": "Как [MASK]?"}],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model", CARD)


def model_folder(folder: Path, card: dict[str, Any], heading: str = r"# Tiny \<b>") -> Path:
    (folder / "onnx").mkdir(parents=True)
    (folder / "reports").mkdir()
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, allow_unicode=True)}---\n\n{heading}\n", "utf-8")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"mask_token": {"content": "[MASK]"}}', encoding="utf-8")
    for name in ("masked_lm_quantized.onnx", "model_quantized.onnx"):
        (folder / "onnx" / name).write_bytes(b"graph")
    facts = {"settings": {"sentences": ["Всё хорошо.", "?!"]}}
    (folder / "reports" / "card.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def html_of(page: Path) -> str:
    return (page / "index.html").read_text(encoding="utf-8")


def data_of(page: Path) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="page">(.+?)</script>', html_of(page))
    found: dict[str, Any] = json.loads(data)
    return found


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def policy_of(page: Path) -> dict[str, list[str]]:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html_of(page).replace("&#39;", "'"))
    return {name: sources for name, *sources in (part.split() for part in policy.split("; "))}


def test_a_page_with_its_model_beside_it(model: Path, tmp_path: Path) -> None:
    write_page(model, tmp_path / "page")
    assert files_of(tmp_path / "page") == {
        "index.html", "page.js", "tasks.js", "style.css", "README.md", "model/config.json", "model/tokenizer.json",
        "model/tokenizer_config.json", "model/onnx/masked_lm_quantized.onnx",
    }  # fmt: skip
    page = data_of(tmp_path / "page")
    assert page["model"]["files"]["onnx/masked_lm_quantized.onnx"] == len(b"graph")
    assert (page["model"]["id"], page["model"]["local"], page["model"]["name"]) == ("model", True, "masked_lm")
    assert page["examples"] == ["Как [MASK]?", "Всё [MASK]."]
    assert page["words"]["noMask"] == "Поставьте [MASK] на место пропущенного слова."
    assert '<html lang="ru">' in html_of(tmp_path / "page")
    assert "<title>Tiny &lt;b&gt;</title>" in html_of(tmp_path / "page")


def test_a_page_that_takes_the_model_from_the_hub(model: Path, tmp_path: Path) -> None:
    write_page(model, tmp_path / "page", SOURCE, is_beside=False)
    assert files_of(tmp_path / "page") == {"index.html", "page.js", "tasks.js", "style.css", "README.md"}
    found = data_of(tmp_path / "page")["model"]
    assert found["base"] == f"https://huggingface.co/me/tiny/resolve/{'0' * 40}"
    assert (found["id"], found["revision"], found["local"]) == ("me/tiny", "0" * 40, False)
    front_matter = yaml.safe_load((tmp_path / "page/README.md").read_text(encoding="utf-8").split("---")[1])
    assert front_matter["sdk"] == "static"
    assert front_matter["models"] == ["me/tiny"]
    assert front_matter["license"] == "mit"
    assert '<a href="https://huggingface.co/me/tiny">' in html_of(tmp_path / "page")


def test_the_policy_lets_the_page_load_what_it_needs_and_send_nothing_elsewhere(model: Path, tmp_path: Path) -> None:
    other = HubModel("me/tiny", "main", "http://127.0.0.1:1")
    write_page(model, tmp_path / "public", SOURCE, is_beside=False)
    write_page(model, tmp_path / "other", other, is_beside=False)
    write_page(model, tmp_path / "beside", other)
    assert '<a href="http://127.0.0.1:1/me/tiny">' in html_of(tmp_path / "beside")
    assert "(http://127.0.0.1:1/me/tiny)" in (tmp_path / "beside/README.md").read_text(encoding="utf-8")
    policies = {name: policy_of(tmp_path / name) for name in ("public", "other", "beside")}
    libraries = {f"{file.cdn.rpartition('/')[0]}/" for file in FILES}
    hosts = {name: set(policy["connect-src"]) - libraries - {"'self'"} for name, policy in policies.items()}
    assert hosts["public"] == {"https://huggingface.co", "https://*.huggingface.co", "https://*.hf.co"}
    assert hosts["other"] == {"http://127.0.0.1:1"}
    assert hosts["beside"] == set()
    (import_map,) = re.findall(r'<script type="importmap">(.+?)</script>', html_of(tmp_path / "public"))
    digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policies["public"]["script-src"]
    assert "'unsafe-inline'" not in html_of(tmp_path / "public")
    assert json.loads(import_map)["integrity"].keys() == {file.cdn for file in FILES if not file.path.endswith("wasm")}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("language", "expected"), [("ru", "ru"), ("rus", "ru"), ("de", "en"), (["en", "ru"], "en")])
def test_every_task_has_its_words_in_both_languages(task: str, language: Any, expected: str, tmp_path: Path) -> None:
    widget = [{"source_sentence": "</script><b>", "sentences": ["a", "b"]}]
    folder = model_folder(tmp_path / "model", {**CARD, "pipeline_tag": task, "language": language, "widget": widget})
    write_page(folder, tmp_path / "page")
    assert data_of(tmp_path / "page")["language"] == expected
    assert data_of(tmp_path / "page")["candidates"] == ["a", "b"]
    html = html_of(tmp_path / "page")
    assert ('id="candidates"' in html) == (task == "sentence-similarity")
    assert ('id="mask"' in html) == (task == "fill-mask")
    assert "</script><b>" not in html
    assert not re.search(r"\{\w+\}", re.sub(r"<script.+?</script>", "", html))


def test_the_two_languages_have_the_same_words() -> None:
    words = json.loads((ROOT / "model_card/space/words.json").read_text(encoding="utf-8"))
    assert words["en"].keys() == words["ru"].keys()
    code = (ROOT / "model_card/space/page.js").read_text("utf-8") + (ROOT / "model_card/space/tasks.js").read_text(
        "utf-8"
    )
    template = (ROOT / "model_card/space/index.html.jinja").read_text(encoding="utf-8")
    used = set(re.findall(r"page\.words\.(\w+)", code + template))
    assert used == words["en"].keys() - {"description", "headings", "inputs"}
    for language, texts in words.items():
        for group in ("headings", "inputs"):
            assert texts[group].keys() == TASKS.keys(), language
        for key, text in texts.items():
            fields = set(re.findall(r"\{\w+\}", str(text)))
            assert fields == set(re.findall(r"\{\w+\}", str(words["en"][key]))), key


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: (folder / "README.md").unlink(),
            "README.md: the model card cannot be read: No such file or directory$",
        ),
        (lambda folder: (folder / "README.md").write_text("# A card"), "README.md: has no front matter"),
        (
            lambda folder: (folder / "README.md").write_text("---\npipeline_tag: question-answering\n---\n"),
            r"a page cannot show the task 'question-answering' \(pipeline_tag\), only fill-mask, ",
        ),
        (
            lambda folder: (folder / "onnx/masked_lm_quantized.onnx").unlink(),
            r"onnx/masked_lm_quantized.onnx is missing, which the page loads; "
            r"conversion.onnx: \[masked-lm-int8\] makes it",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing, which the page loads$"),
    ],
)
def test_a_model_that_a_page_cannot_show(spoil: Any, message: str, model: Path, tmp_path: Path) -> None:
    spoil(model)
    with pytest.raises(UserError, match=message) as caught:
        write_page(model, tmp_path / "page")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_only_a_page_is_replaced(model: Path, tmp_path: Path) -> None:
    write_page(model, tmp_path / "page")
    (tmp_path / "page" / "style.css").write_text("of an older version")
    write_page(model, tmp_path / "page")
    assert "older" not in (tmp_path / "page" / "style.css").read_text()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    # Many sites have a file of this name.
    (mine / "page.js").write_text("mine")
    for output in (mine, mine / "thesis.txt"):
        with pytest.raises(UserError, match=r"--output .+: exists; name a new folder"):
            write_page(model, output)
    assert files_of(mine) == {"page.js", "thesis.txt"}


def test_offline_assets(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "node_modules"
    file = LibraryFile("@a/b", "1.0", "dist/b.js", "sha384-")
    (packages / "@a/b/dist").mkdir(parents=True)
    (packages / "@a/b/dist/b.js").write_text("export {}")
    file = LibraryFile("@a/b", "1.0", "dist/b.js", integrity_of(packages / "@a/b/dist/b.js"))
    monkeypatch.setattr(demo_page, "FILES", (file, *FILES[:0]))
    monkeypatch.setattr(demo_page, "IMPORTS", {"b": file})
    monkeypatch.setattr(demo_page, "WASM", file)
    write_page(model, tmp_path / "page", offline_assets=packages)
    assert "library/b.js" in files_of(tmp_path / "page")
    assert "https:" not in str(policy_of(tmp_path / "page"))
    (packages / "@a/b/dist/b.js").write_text("export { changed }")
    with pytest.raises(UserError, match=r"--offline-assets .+: @a/b/dist/b.js is another version; npm install "):
        write_page(model, tmp_path / "new", offline_assets=packages)
    shutil.rmtree(packages)
    with pytest.raises(UserError, match=r"--offline-assets .+: @a/b/dist/b.js is missing; npm install "):
        write_page(model, tmp_path / "new", offline_assets=packages)
    assert not (tmp_path / "new").exists()


def test_the_clients_test_the_version_that_the_page_loads() -> None:
    tested = json.loads((ROOT / "tests/clients/node/package.json").read_text(encoding="utf-8"))["dependencies"]
    assert tested["@huggingface/transformers"] == FILES[0].version


def test_the_mask_of_other_tokenizers(model: Path) -> None:
    (model / "tokenizer_config.json").write_text('{"mask_token": "<mask>"}', encoding="utf-8")
    shown = read_model(model)
    assert shown.mask == "<mask>"
    assert "Всё <mask>." in shown.examples


def test_vectors_are_made_as_sentence_transformers_makes_them(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", {**CARD, "pipeline_tag": "sentence-similarity"})
    assert read_model(folder).vectors == {"pooling": "mean", "query": "", "document": ""}
    modules = [{"path": "", "type": "a.Transformer"}, {"path": "pooling", "type": "a.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    pooling = folder / "pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    # What the list of modules does not name is not read.
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}', encoding="utf-8")
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    write_page(folder, tmp_path / "page")
    assert data_of(tmp_path / "page")["vectors"] == {"pooling": "cls", "query": "query: ", "document": "passage: "}
    pooling.write_text('{"pooling_mode": "cls"}', encoding="utf-8")
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    assert read_model(folder).vectors == {"pooling": "cls", "query": "query: ", "document": "passage: "}
    pooling.write_text('{"pooling_mode": "max"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"its pooling is max; allowed: mean or cls"):
        read_model(folder)


def test_a_card_without_examples(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", {"pipeline_tag": "text-classification"}, heading="")
    write_page(folder, tmp_path / "page")
    assert data_of(tmp_path / "page")["examples"] == []
    assert "<title>model</title>" in html_of(tmp_path / "page")
    assert 'id="examples"' not in html_of(tmp_path / "page")
