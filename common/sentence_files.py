"""What the files of sentence-transformers say of the vectors of sentences: pooling and prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json

PoolingMode = Literal["mean", "cls"]

MODULES_FILE = "modules.json"
# Has the prompts; of our own models, those have it that are made to encode sentences.
PROMPTS_FILE = "config_sentence_transformers.json"
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_MODES: dict[str, PoolingMode] = {
    "pooling_mode_mean_tokens": "mean", "mean": "mean", "pooling_mode_cls_token": "cls", "cls": "cls",
}  # fmt: skip


class SentencePrompts(BaseModel):
    """The prompts of a model by their names, as its file has them."""

    model_config = ConfigDict(strict=True, frozen=True)

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None

    @property
    def by_name(self) -> dict[str, str]:
        """All of them, also empty ones."""
        return {name: prompt or "" for name, prompt in (self.prompts or {}).items()}

    @property
    def query(self) -> str:
        """Put before a text that is looked for, and before both of two that are compared; empty without."""
        return self.by_name.get("query") or self._default or ""

    @property
    def document(self) -> str | None:
        """Put before a text that is found; None where that is not said."""
        return next((self.by_name[name] for name in _DOCUMENT_PROMPTS if name in self.by_name), self._default)

    @property
    def _default(self) -> str | None:
        return self.by_name.get(self.default_prompt_name or "")


class _PoolingConfig(BaseModel):
    """Files of sentence-transformers 5 have ``pooling_mode``, older ones a flag for each mode."""

    model_config = ConfigDict(strict=True, extra="allow")

    pooling_mode: str | list[str] | None = None


def read_prompts(folder: Path) -> SentencePrompts | None:
    """The prompts of a model; None for a folder without their file.

    Raises:
        UserError: if the file is not of its form.
    """
    file = folder / PROMPTS_FILE
    return stated_settings(SentencePrompts, read_json(file), file) if file.is_file() else None


def modules_in(folder: Path) -> list[dict[str, Any]]:
    """The modules that a model consists of, in their order; none for a folder without their file.

    Raises:
        UserError: if the file is not of its form.
    """
    file = folder / MODULES_FILE
    if not file.is_file():
        return []
    modules = read_json(file)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise UserError(f"{file}: a list of modules is needed")
    return modules


def kind_of_module(module: Mapping[str, Any]) -> str:
    """The class of a module, without the package that it is of."""
    return str(module.get("type")).rpartition(".")[2]


def pooling_file(folder: Path) -> Path | None:
    """The file that says how a model pools, in the folder that its list of modules names; None without pooling.

    Raises:
        UserError: as :func:`modules_in`.
    """
    paths = [module.get("path") or "" for module in modules_in(folder) if kind_of_module(module) == "Pooling"]
    return folder / str(paths[0]) / "config.json" if paths else None


def pooling_in(folder: Path) -> PoolingMode:
    """How a model pools; the mean where its files do not say, as sentence-transformers takes it then.

    Raises:
        UserError: as :func:`read_pooling`, if the list of modules names a file that is not there, and if the tokens of
            prompts are left out.
    """
    file = pooling_file(folder)
    if file is None:
        return "mean"
    pooling, prompts = read_pooling(file), read_prompts(folder)
    if read_json(file).get("include_prompt") is False and prompts and any(prompts.by_name.values()):
        raise UserError(f"{file}: include_prompt is false; only vectors with the tokens of their prompt are taken")
    return pooling


def read_pooling(file: Path) -> PoolingMode:
    """The pooling that the ``config.json`` of a pooling module has.

    Raises:
        UserError: if it is neither mean nor CLS.
    """
    config = stated_settings(_PoolingConfig, read_json(file), file)
    modes = [config.pooling_mode] if isinstance(config.pooling_mode, str) else config.pooling_mode
    if modes is None:
        flags = (config.model_extra or {}).items()
        modes = [name for name, value in flags if name.startswith("pooling_mode_") and value is True] or ["mean"]
    if len(modes) != 1 or modes[0] not in _MODES:
        found = " and ".join(_MODES.get(mode, mode) for mode in modes) or "empty"
        raise UserError(f"{file}: its pooling is {found}; allowed: mean or cls")
    return _MODES[modes[0]]
