"""What can go wrong with a request, and the plan of which request it befalls."""

import dataclasses
import enum
import os
import signal


class Fault(enum.Enum):
    """A way in which one request fails. "Done" says that the Hub has carried the request out nonetheless."""

    REFUSED = "connection refused"
    DROPPED_BEFORE_BODY = "dropped before the body"
    DROPPED_AFTER_BODY = "dropped after the body, done"
    TRUNCATED = "truncated response, done"
    SERVER_ERROR = "500"
    SERVER_ERROR_DONE = "500, done"
    BAD_GATEWAY = "502"
    BAD_GATEWAY_DONE = "502, done"
    RATE_LIMITED = "429"
    SLOW = "slow"
    KILLED_BEFORE = "client killed before"
    KILLED_AFTER = "client killed after, done"

    @property
    def is_done(self) -> bool:
        """Whether the Hub carries the request out although the client gets no proper answer."""
        return self in (
            Fault.DROPPED_AFTER_BODY,
            Fault.TRUNCATED,
            Fault.SERVER_ERROR_DONE,
            Fault.BAD_GATEWAY_DONE,
            Fault.KILLED_AFTER,
        )

    @property
    def status(self) -> int | None:
        """The status of the answer that takes the place of the true one."""
        return {
            Fault.SERVER_ERROR: 500, Fault.SERVER_ERROR_DONE: 500,
            Fault.BAD_GATEWAY: 502, Fault.BAD_GATEWAY_DONE: 502,
            Fault.RATE_LIMITED: 429,
        }.get(self)  # fmt: skip

    @property
    def kills(self) -> bool:
        return self in (Fault.KILLED_BEFORE, Fault.KILLED_AFTER)


@dataclasses.dataclass
class FaultPlan:
    """Which request indices fail, counted from zero since the plan was set.

    Attributes:
        fault: what befalls them.
        first: the first index that fails.
        count: how many in a row fail.
        path: only requests whose path holds this count.
        slowness_s: how long a slow answer takes, seconds.
        outage_s: how long connections are refused, seconds.
        victim: process id of the client that is killed.
        headers: of a 429.
        fired: how many requests have failed.
    """

    fault: Fault
    first: int
    count: int = 1
    path: str = ""
    slowness_s: float = 0.05
    outage_s: float = 0.1
    victim: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=lambda: {"Retry-After": "0"})
    fired: int = 0

    def at(self, index: int) -> Fault | None:
        if self.first <= index < self.first + self.count:
            self.fired += 1
            return self.fault
        return None

    def kill(self) -> None:
        assert self.victim is not None
        os.kill(self.victim, signal.SIGKILL)
