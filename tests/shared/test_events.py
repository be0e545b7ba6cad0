"""Events over real HTTP: what arrives, what is tried again, and what a webhook that fails costs."""

import logging
from collections.abc import Iterator

import pytest

from shared import events
from tests.webhook import Hook


@pytest.fixture
def hook(monkeypatch) -> Iterator[Hook]:
    monkeypatch.setattr(events, "PAUSES", (0.01, 0.01))
    made = Hook()
    yield made
    made.close()


def test_an_event_is_for_people_and_for_programs(hook):
    assert events.post(hook.secrets, events.PROMOTED, "ptvr <1> & co stand for all", version="ptvr/1", gates=[]) is None
    assert hook.bodies == [
        {
            "text": "ptvr &lt;1&gt; &amp; co stand for all",
            "metadata": {"event_type": "promoted", "event_payload": {"version": "ptvr/1", "gates": []}},
        }
    ]


def test_without_a_webhook_nothing_is_posted(hook):
    assert events.post({}, events.PROMOTED, "x") is None
    assert hook.bodies == []


def test_what_may_pass_is_tried_again(hook):
    hook.answers = [(503, {}), (429, {"Retry-After": "0"}), (200, {})]
    assert events.post(hook.secrets, events.PROMOTED, "x") is None
    assert len(hook.bodies) == 3


def test_what_will_not_pass_is_not(hook, caplog):
    hook.answers = [(404, {})]
    with caplog.at_level(logging.DEBUG):
        said = events.post(hook.secrets, events.PROMOTED, "x")
    assert "it answered 404" in said
    assert len(hook.bodies) == 1
    assert "hunter2" not in said + caplog.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/services/hunter2", "no address at all/hunter2", "ftp://h/hunter2"])
def test_a_webhook_that_is_not_there_is_said_without_its_secret(monkeypatch, caplog, url):
    monkeypatch.setattr(events, "PAUSES", (0.01, 0.01))
    with caplog.at_level(logging.DEBUG):
        said = events.post({"MBARI_WEBHOOK_URL": url}, events.GATE_FAILED, "x")
    assert "'gate_failed' was not posted" in said
    assert "hunter2" not in said + caplog.text
