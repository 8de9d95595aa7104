"""A Hub, a token, and how often to try again."""

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import HfApi

from distilrubert.common.errors import UserError
from distilrubert.common.hub_address import hub_endpoint
from distilrubert.common.hub_failures import token_in_use
from distilrubert.pipeline.hub.publish_errors import explain, is_transient, retry_after_s, token_advice
from distilrubert.pipeline.hub.publish_settings import PublishSettings, require_target

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often and how long to try again after a lost connection, a 429 or a 5xx.

    Attributes:
        attempts: how often a request is made at most.
        first_wait_s: pause after the first failure, seconds; it doubles each time.
        longest_wait_s: the longest pause that doubling leads to, seconds.
        longest_retry_after_s: the longest pause that a server may ask for, seconds; the Hub counts requests over five
            minutes.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 300.0

    def wait_s(self, attempt: int, asked_s: float = 0.0) -> float:
        """Seconds to wait after the failed attempt of that number, counted from 1."""
        backoff = min(self.first_wait_s * float(2 ** (attempt - 1)), self.longest_wait_s)
        return max(backoff, min(asked_s, self.longest_retry_after_s))


@dataclasses.dataclass(frozen=True)
class HubConnection:
    """What every request to one repository needs.

    Attributes:
        api: the client, bound to the endpoint and the token.
        repo_id: the repository, OWNER/NAME.
        retry: how often to try again.
        repo_type: what kind of repository it is, as the client names it: model or space.
    """

    api: HfApi
    repo_id: str
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    repo_type: str = "model"

    @property
    def endpoint(self) -> str:
        """URL of the Hub, without a closing slash."""
        return str(self.api.endpoint)

    @property
    def title(self) -> str:
        """The repository as messages name it: a model and its Space have the same id."""
        return f"Space {self.repo_id}" if self.repo_type == "space" else self.repo_id

    def call(self, purpose: str, request: Callable[[], T]) -> T:
        """The result of `request`, tried again while it fails in a way that may pass.

        Args:
            purpose: what it is for, as in "reading the repository"; for the log.
            request: one or more calls of the client that may be repeated as a whole.

        Raises:
            UserError: when it fails for good, with what to do.
        """
        attempts = self.retry.attempts
        for attempt in range(1, attempts + 1):
            try:
                return request()
            except UserError:
                raise
            except Exception as error:
                token = str(self.api.token)
                explanation = explain(error, endpoint=self.endpoint, repo_id=self.repo_id, token=token)
                if explanation is None:
                    raise
                if attempt == attempts or not is_transient(error):
                    # The client's own error may quote the server's answer, and a server may quote the token.
                    raise explanation.as_error() from None
                wait_s = self.retry.wait_s(attempt, retry_after_s(error))
            said = "%s failed: %s. Attempt %d of %d in %.0f s"
            logger.warning(said, purpose.capitalize(), explanation.problem, attempt + 1, attempts, wait_s)
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")


def connect(settings: PublishSettings, endpoint: str | None = None, retry: RetryPolicy | None = None) -> HubConnection:
    """Check the target and find the token: HF_TOKEN, or the login that `hf auth login` stored. Nothing is sent.

    The endpoint is from the user and never from a recipe; None takes HF_ENDPOINT, or the public Hub.

    Raises:
        UserError: if the repository id, the revision or the endpoint is malformed, or there is no usable token.
    """
    repo_id = require_target(settings)
    endpoint = hub_endpoint(endpoint)
    token = token_in_use()
    if not token:
        raise UserError(f"HF_TOKEN: there is no token; {token_advice(endpoint)}")
    logging.getLogger("huggingface_hub.utils._http").addFilter(_is_not_a_retry)
    return HubConnection(HfApi(endpoint=endpoint, token=token), repo_id, retry or RetryPolicy())


def _is_not_a_retry(record: logging.LogRecord) -> bool:
    """Whether it is not one of the client's own lines on retries: they hold URLs, and those of a storage are signed."""
    message = record.getMessage()
    return "thrown while requesting" not in message and "[Retry " not in message
