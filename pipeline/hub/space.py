"""Publishing the page of a model beside it: the same plan, commit and verification, to a Space of the same name."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.model_card.space.demo_page import HubModel, write_page
from distilrubert.pipeline.hub.connection import HubConnection
from distilrubert.pipeline.hub.files import local_files
from distilrubert.pipeline.hub.plan import PushPlan, plan_push
from distilrubert.pipeline.hub.preflight import PAGE_CHECKS, preflight
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import Publication, create_repository, push
from distilrubert.pipeline.hub.remote import read_remote
from distilrubert.pipeline.hub.target import check_target
from distilrubert.pipeline.hub.verify import Verification, verify_push

NO_COMMIT = "0" * 40
"""In the place of the model's commit while there is none yet."""


class SpacePublisher:
    """Publishes the page of one model repository."""

    def __init__(self, folder: Path, settings: PublishSettings, model: HubConnection) -> None:
        """Nothing is asked or written.

        Args:
            folder: the model repository.
            settings: where the model goes, and so the Space.
            model: the connection to the model.
        """
        self._folder, self._settings, self._model = folder, settings, model
        self._space = dataclasses.replace(model, repo_type="space")

    def check(self) -> None:
        """Refuse a Space that cannot be published to, before the work; the page itself is not made yet.

        Raises:
            UserError: as :func:`~distilrubert.pipeline.hub.target.check_target`, or if the Space is something else.
        """
        check_target(self._settings_of_space(self._is_private()), self._space)

    def plan(self, revision: str | None) -> PushPlan:
        """What publishing the page would change. Nothing is changed.

        Args:
            revision: the model's commit; None if it is still to be made.

        Raises:
            UserError: if the page cannot show the model, or the Space is something else.
        """
        private = self._is_private()
        with self._page(revision or NO_COMMIT, private=private) as page:
            return plan_push(page, self._settings_of_space(private), self._space)

    def create(self, plan: PushPlan) -> None:
        """Make the Space where there is none: whether that is allowed shows before the model is published.

        Raises:
            UserError: if the Hub cannot be reached or refuses.
        """
        if plan.creates_repository:
            create_repository(plan, self._space)

    def publish(self, revision: str) -> tuple[Publication, Verification]:
        """Publish the page of a commit of the model, and read it back.

        Raises:
            UserError: as :func:`~distilrubert.pipeline.hub.push.push_folder`.
        """
        private = self._is_private()
        with self._page(revision, private=private) as page:
            plan = plan_push(page, self._settings_of_space(private), self._space)
            publication = push(plan, self._space)
            return publication, verify_push(plan.digests, self._space, publication.revision)

    def verify(self, revision: str) -> Verification:
        """Compare the Space with the page of a commit of the model.

        Raises:
            UserError: as :func:`~distilrubert.pipeline.hub.verify.verify_push`.
        """
        with self._page(revision, private=self._is_private()) as page:
            return verify_push(local_files(page), self._space, "main")

    def _settings_of_space(self, private: bool | None) -> PublishSettings:
        kept = self._settings.model_dump(include={"repo_id", "resource_group_id", "commit_message"})
        return PublishSettings(**kept, private=private)

    def _is_private(self) -> bool | None:
        """Whether the model is private; what the settings say where it is still to be made."""
        remote = read_remote(self._model)
        return self._settings.private if remote is None else remote.private

    @contextlib.contextmanager
    def _page(self, revision: str, *, private: bool | None) -> Iterator[Path]:
        """The page as a folder, checked."""
        model = HubModel(self._model.repo_id, revision, self._model.endpoint)
        with tempfile.TemporaryDirectory(prefix="distilrubert-space-") as work:
            page = Path(work) / "space"
            # A visitor's browser has no token: what the page of a private model loads lies in the private Space.
            write_page(self._folder, page, model, is_beside=bool(private))
            if problems := preflight(page, PAGE_CHECKS):
                raise UserError(f"publish.space: the page cannot be published: {'; '.join(map(str, problems))}")
            yield page
