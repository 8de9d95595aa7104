"""One fault at every request of a publish: the repository is old or new, and a repeat ends at the new one."""

import io
import logging
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import RetryPolicy, connect
from distilrubert.pipeline.hub.plan import plan_push
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push

from .conftest import HASTY
from .faults import Fault
from .server import LocalHub
from .storage import Commit, Entry
from .survival import ONCE, PATIENT, SCENARIOS, Scenario, Trial, hurried, push_once, survive
from .victim import Victim

PASSING = (
    Fault.REFUSED,
    Fault.DROPPED_BEFORE_BODY,
    Fault.DROPPED_AFTER_BODY,
    Fault.TRUNCATED,
    Fault.BAD_GATEWAY_DONE,
    Fault.RATE_LIMITED,
)
NEVER = 10**6


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Victim() as process:
        yield process


def trial(hub: LocalHub, model_folder: Path, tmp_path: Path, scenario: Scenario, victim: Victim | None = None) -> Trial:
    return Trial(hub, model_folder, tmp_path, scenario, victim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "fault"),
    [pytest.param(s, f, id=f"{s.ref} {f.value}") for f in Fault for s in SCENARIOS if f in s.kinds],
)
def test_a_fault_at_every_request(
    local_hub: LocalHub, model_folder: Path, tmp_path: Path, victim: Victim, scenario: Scenario, fault: Fault
) -> None:
    outcomes = survive(trial(local_hub, model_folder, tmp_path, scenario, victim), fault)
    assert len(outcomes) >= 10, "with 22 cases of this test that makes the 200 faults at least"
    # The fault before the commit and the one after it tell that the matrix reaches both sides.
    assert any(outcome.changed_before_repeat for outcome in outcomes)
    if fault is not Fault.SLOW:
        assert any(not outcome.changed_before_repeat for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.value)
def test_patience_publishes_at_once(local_hub: LocalHub, model_folder: Path, tmp_path: Path, fault: Fault) -> None:
    outcomes = survive(trial(local_hub, model_folder, tmp_path, SCENARIOS[0]), fault, PATIENT)
    assert outcomes
    assert [outcome.index for outcome in outcomes if not outcome.published] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.ref)
@pytest.mark.parametrize("retry", [ONCE, PATIENT], ids=["once", "patient"])
def test_the_answer_to_a_commit_is_lost(
    local_hub: LocalHub, model_folder: Path, tmp_path: Path, scenario: Scenario, retry: RetryPolicy
) -> None:
    some_trial = trial(local_hub, model_folder, tmp_path, scenario)
    for fault in (Fault.DROPPED_AFTER_BODY, Fault.SERVER_ERROR_DONE, Fault.BAD_GATEWAY_DONE):
        outcome = some_trial.run(fault, 0, retry, path="/commit/")
        assert outcome is not None
        assert outcome.published, "what was committed is recognised"


def test_a_client_killed_right_after_its_commit(
    local_hub: LocalHub, model_folder: Path, tmp_path: Path, victim: Victim
) -> None:
    some_trial = trial(local_hub, model_folder, tmp_path, SCENARIOS[0], victim)
    after = some_trial.run(Fault.KILLED_AFTER, 0, path="/commit/")
    before = some_trial.run(Fault.KILLED_BEFORE, 0, path="/commit/")
    assert after is not None
    assert before is not None
    assert (after.changed_before_repeat, before.changed_before_repeat) == (True, False)


def test_a_hub_that_stays_broken(local_hub: LocalHub, model_folder: Path, target: PublishSettings) -> None:
    plan = local_hub.fail(Fault.BAD_GATEWAY, 0, count=NEVER)
    with pytest.raises(UserError, match=r"answers with 502 \(502\); later repeat the command"):
        push_once(model_folder, target, local_hub.endpoint, RetryPolicy(attempts=3, first_wait_s=0.01))
    assert plan.fired == 3


def test_a_repeat_sends_only_what_is_missing(local_hub: LocalHub, folder: Path, target: PublishSettings) -> None:
    local_hub.multipart_threshold, local_hub.part_size = 400, 300
    (folder / "first.bin").write_bytes(b"1" * 100)
    (folder / "second.bin").write_bytes(b"2" * 500)
    push_once(folder, target, local_hub.endpoint, ONCE)
    sent = list(local_hub.uploads)
    assert len(sent) == len(set(sent)) >= 4
    again = target.model_copy(update={"repo_id": "me/again"})
    (folder / "third.bin").write_bytes(b"3" * 100)
    local_hub.fail(Fault.SERVER_ERROR, path="/commit/", count=NEVER)
    with pytest.raises(UserError):
        push_once(folder, again, local_hub.endpoint, ONCE)
    local_hub.heal()
    assert push_once(folder, again, local_hub.endpoint, ONCE).changed
    assert len(local_hub.uploads) == len(sent) + 1, "only third.bin, and once"


def test_the_advice_is_given_once(
    local_hub: LocalHub, model_folder: Path, target: PublishSettings, caplog: pytest.LogCaptureFixture
) -> None:
    local_hub.fail(Fault.BAD_GATEWAY, 0, count=NEVER)
    # The command line has its loggers to itself.
    logger = logging.getLogger("distilrubert.pipeline.hub.connection")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(UserError, match="repeat the command"):
            push_once(model_folder, target, local_hub.endpoint, HASTY)
    finally:
        logger.removeHandler(caplog.handler)
    lines = list(dict.fromkeys(record.getMessage() for record in caplog.records))
    assert [line.partition(". Attempt ")[2] for line in lines] == ["2 of 3 in 0 s", "3 of 3 in 0 s"]
    assert not any("repeat" in line for line in lines)


def test_addresses_of_a_storage_are_not_logged(local_hub: LocalHub, folder: Path, target: PublishSettings) -> None:
    plan = local_hub.fail(Fault.SERVER_ERROR, 0, count=2, path="/lfs-storage/")
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(handler)
    try:
        with hurried():
            assert push_once(folder, target, local_hub.endpoint, PATIENT).committed
    finally:
        logger.removeHandler(handler)
    assert plan.fired == 2
    assert "signature=" not in lines.getvalue()
    assert "Retry" not in lines.getvalue()


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55),
        ({"ratelimit": '"resolvers"; r=0; t=299'}, 299),
        ({"Retry-After": "7", "RateLimit": '"api";r=0;t=55'}, 7),
        ({}, 0.01),
    ],
)
def test_waiting_for_the_end_of_a_rate_limit(
    local_hub: LocalHub, model_folder: Path, target: PublishSettings, monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str], wait_s: float,
) -> None:  # fmt: skip
    waits: list[float] = []
    monkeypatch.setattr("distilrubert.pipeline.hub.connection.time", types.SimpleNamespace(sleep=waits.append))
    local_hub.fail(Fault.RATE_LIMITED, 0, headers=headers)
    assert push_once(model_folder, target, local_hub.endpoint, HASTY).committed
    assert waits == [wait_s]


@pytest.mark.parametrize("count", [1, NEVER], ids=["once", "for good"])
def test_what_fails_after_a_refused_commit_is_tried_again_and_told_as_its_own(
    local_hub: LocalHub, folder: Path, target: PublishSettings, count: int
) -> None:
    push_once(folder, target, local_hub.endpoint, ONCE)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmine")
    connection = connect(target, local_hub.endpoint, HASTY)
    plan = plan_push(folder, target, connection)
    repository = local_hub.storage.repositories["me/demo"]
    repository.commit("main", repository.tree(), repository.branches["main"], "theirs", "colleague")
    fault = local_hub.fail(Fault.DROPPED_BEFORE_BODY, 0, count=count, path="/commits/")
    words = "someone else published to main meanwhile" if count == 1 else "broke the connection"
    with hurried(), pytest.raises(UserError, match=words):
        push(plan, connection)
    # The client from 1.x on tries again by itself, too.
    assert fault.fired == 1 if count == 1 else fault.fired >= HASTY.attempts


def test_waiting_as_long_as_the_hub_asks() -> None:
    policy = RetryPolicy(attempts=6, first_wait_s=1, longest_wait_s=8, longest_retry_after_s=60)
    assert [policy.wait_s(attempt) for attempt in range(1, 6)] == [1, 2, 4, 8, 8]
    assert policy.wait_s(1, asked_s=20) == 20
    assert policy.wait_s(4, asked_s=2) == 8
    assert policy.wait_s(1, asked_s=3600) == 60


def test_a_commit_with_a_lost_answer_is_known_under_a_later_one(
    local_hub: LocalHub, folder: Path, target: PublishSettings
) -> None:
    push_once(folder, target, local_hub.endpoint, ONCE)
    repository = local_hub.storage.repositories["me/demo"]
    (folder / "README.md").write_text("---\nlicense: mit\n---\nmine")
    commit = repository.commit

    def commit_and_let_another_follow(*arguments: Any) -> Commit:
        repository.commit = commit  # type: ignore[method-assign]
        made = commit(*arguments)
        commit("main", {**made.tree, "README.md": Entry(b"theirs")}, made.oid, "theirs", "colleague")
        return made

    repository.commit = commit_and_let_another_follow  # type: ignore[method-assign, assignment]
    local_hub.fail(Fault.DROPPED_AFTER_BODY, path="/commit/")
    found = push_once(folder, target, local_hub.endpoint, ONCE)
    assert found.changed
    assert found.revision == repository.history()[1].oid
    assert repository.tree(found.revision)["README.md"].content.endswith(b"mine")
