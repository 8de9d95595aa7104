"""What a recipe says about publishing, and whether it makes sense."""

import re
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from pydantic import Field, model_validator

from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import COMMIT

# What git refuses in the name of a branch or tag (git-check-ref-format), and a name that looks like an option.
_BAD_REF = re.compile(r"[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|@\{|//|/\.|^[-/.]|[/.]$|\.lock$|^$")
_REPO_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_PULL_REQUEST = re.compile(r"refs/pr/[1-9][0-9]*")


class PublishSettings(Section):
    """Where the model repository goes."""

    repo_id: str | None = Field(
        None, description="Repository as OWNER/NAME, of a user or an organisation; null: nothing is published."
    )
    private: bool | None = Field(
        None,
        description="Whether the repository is private; null: the owner's default where it has to be created. An "
        "existing repository with another visibility is refused.",
    )
    resource_group_id: str | None = Field(
        None, description="Resource group of an Enterprise organisation in which the repository is created."
    )
    revision: str = Field(
        "main", description="Branch to publish to, created if missing; or refs/pr/N to add to a pull request."
    )
    create_pr: bool = Field(
        False, description="Whether to open a pull request against the revision and leave the revision as it is."
    )
    commit_message: str | None = Field(
        None, min_length=1, description="First line of the commit, and title of a pull request; null: Publish NAME."
    )
    tag: str | None = Field(None, description="Tag for the published commit, for example v1.0.")
    space: bool = Field(
        False,
        description="Whether to publish a demo page too, a static Space of the same name: people try the model there, "
        "in their own browser. To fill masks it runs onnx/masked_lm_quantized.onnx (conversion.onnx: masked-lm-int8); "
        "to compare sentences, classify texts or tag words onnx/model_quantized.onnx (int8). Other tasks have no page.",
    )
    prune: bool = Field(
        False,
        description="Whether to delete what the repository holds and the folder does not; what was made with weights "
        "that are replaced is always deleted.",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_endpoint(cls, values: Any) -> Any:
        """Refuse an endpoint: the token is sent there, and a recipe can come from a stranger."""
        if not isinstance(values, dict) or "endpoint" not in values:
            return values
        if values["endpoint"] is not None:
            raise ValueError(
                "a recipe must not name an endpoint, because your token would be sent there; use --endpoint or "
                "HF_ENDPOINT"
            )
        # Recipes that earlier versions resolved have `endpoint: null`.
        return {key: value for key, value in values.items() if key != "endpoint"}

    @property
    def is_proposal(self) -> bool:
        """Whether the commit goes into a pull request, for which no write access to the branch is needed."""
        return self.create_pr or self.revision.startswith("refs/pr/")


def require_target(settings: PublishSettings) -> str:
    """The repository id of settings that can be published with.

    Raises:
        UserError: naming the setting that is missing or malformed.
    """
    repo_id = settings.repo_id
    if repo_id is None:
        raise UserError("publish.repo_id: is missing; give the repository as --repo-id OWNER/NAME")
    check_form(settings)
    if settings.tag is not None and settings.create_pr:
        raise UserError("publish.tag: a pull request cannot be tagged; merge it, then publish again with --tag")
    if settings.create_pr and settings.revision.startswith("refs/pr/"):
        raise UserError(f"publish.create_pr: {settings.revision} is a pull request already; leave out --create-pr")
    if settings.space and settings.is_proposal:
        raise UserError(
            "publish.space: visitors do not see what a pull request proposes; merge it, then publish again with --space"
        )
    return repo_id


def check_form(settings: PublishSettings) -> None:
    """Refuse names that no Hub has.

    Raises:
        UserError: naming the setting that is malformed.
    """
    if settings.repo_id is not None:
        _check_repo_id(settings.repo_id)
    _check_ref("publish.revision", settings.revision)
    if settings.tag is not None:
        _check_ref("publish.tag", settings.tag)


def _check_repo_id(repo_id: str) -> None:
    form = "expected OWNER/NAME of letters, digits, '-', '_' and '.', for example me/my-model"
    if not _REPO_ID.fullmatch(repo_id):
        raise UserError(f"publish.repo_id: {repo_id!r} is malformed; {form}")
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UserError(
            f"publish.repo_id: {repo_id!r} is malformed; {form}, no '--' or '..', 96 characters at most"
        ) from None


def _check_ref(field: str, name: str) -> None:
    if _BAD_REF.search(name):
        raise UserError(f"{field}: {name!r} cannot name a branch or tag; use letters, digits, '-', '_', '.' and '/'")
    if name.startswith("refs/") and not (field == "publish.revision" and _PULL_REQUEST.fullmatch(name)):
        raise UserError(
            f"{field}: {name!r}: give a branch or tag by its name alone; of refs/ only refs/pr/N is a revision"
        )
    if COMMIT.fullmatch(name):
        raise UserError(f"{field}: {name} is a commit, and commits cannot change; give the name of a branch")
