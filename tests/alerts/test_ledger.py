"""Alerts are told once, delivered at least once, and acknowledged by people."""

from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

import cellabel.alerts._ledger as alert_ledger
from cellabel import InputError
from cellabel.alerts import Alert, AlertLedger, alert_id

START = dt.datetime(2026, 1, 5, 8, tzinfo=dt.UTC)


def alert(name="drift-P1", **changes):
    content = {
        "kind": "drift",
        "title": "Plate P1 drifts",
        "body": "It looks like defocus.",
        "created_at": START,
    }
    return Alert(id=name, **{**content, **changes})


@pytest.fixture
def ledger(tmp_path):
    return AlertLedger(tmp_path / "alerts")


class Receiver:
    """A webhook that answers with the given codes, the last one for ever."""

    def __init__(self, *codes):
        self.codes, self.messages = list(codes) or [200], []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = receiver.codes.pop(0) if len(receiver.codes) > 1 else receiver.codes[0]
                if code == 200:
                    receiver.messages.append(json.loads(body))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_):
                """Stay silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"json://user:hunter2@127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver():
    receivers = []

    def make(*codes):
        receivers.append(Receiver(*codes))
        return receivers[-1]

    yield make
    for one in receivers:
        one.server.shutdown()
        one.server.server_close()


def test_an_alert_comes_back_as_it_was_written(ledger):
    written = alert(plate="P1", organelle="er", severity="error", link="http://x/y", data={"statistic": 1.5})
    assert ledger.write(written)
    assert ledger.alerts() == [written] == [ledger.get("drift-P1")]


def test_writing_the_same_id_twice_changes_nothing(ledger):
    assert ledger.write(alert(title="first")) and not ledger.write(alert(title="second"))
    assert [one.title for one in ledger.alerts()] == ["first"]


def test_an_empty_ledger_has_no_alerts_and_makes_no_folder(ledger):
    assert ledger.alerts() == [] and ledger.deliver_pending().delivered == ()
    assert not ledger.root.exists()


def test_alerts_are_listed_by_kind_and_time(ledger):
    for hours, (name, kind) in enumerate([("c", "drift"), ("b", "failure"), ("a", "drift")]):
        ledger.write(alert(name, kind=kind, created_at=START + dt.timedelta(hours=hours)))
    assert [one.id for one in ledger.alerts()] == ["c", "b", "a"]
    assert [one.id for one in ledger.alerts("drift")] == ["c", "a"]


def test_an_acknowledged_alert_leaves_the_open_ones_and_the_first_word_stays(ledger):
    ledger.write(alert("a"))
    ledger.write(alert("b"))
    first = ledger.acknowledge("a", "Ada", "lamp replaced", genuine=True)
    assert ledger.acknowledge("a", "Bob", "no") == first == ledger.acknowledgement("a")
    assert (first.by, first.note) == ("Ada", "lamp replaced")
    assert [one.id for one in ledger.alerts(unacknowledged=True)] == ["b"]
    assert ledger.acknowledgement("b") is None


def test_an_unknown_alert_cannot_be_acknowledged(ledger):
    with pytest.raises(InputError, match="no alert 'x'"):
        ledger.acknowledge("x", "Ada")


def test_the_precision_of_alarms_counts_only_what_people_judged(ledger):
    for name, genuine in {"a": True, "b": False, "c": None}.items():
        ledger.write(alert(name))
        ledger.acknowledge(name, "Ada", genuine=genuine)
    ledger.write(alert("d"))
    assert ledger.precision() == (1, 2) and ledger.precision("failure") == (0, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../escape"}, "cannot be used"),
        ({"name": ""}, "cannot be used"),
        ({"kind": "weather"}, "the kinds are drift"),
        ({"severity": "mild"}, "choose info"),
    ],
)
def test_an_alert_that_cannot_be_is_refused_in_a_sentence(changes, words):
    with pytest.raises(InputError, match=words):
        alert(**changes)


@given(
    st.lists(st.text(max_size=200), min_size=1, max_size=3),
    st.lists(st.text(max_size=20), min_size=1, max_size=3),
)
def test_ids_are_deterministic_distinct_and_usable(parts, others):
    assert alert(alert_id(*parts)).id == alert_id(*parts)
    assert (alert_id(*parts) == alert_id(*others)) == (parts == others)


def test_an_event_told_twice_is_one_alert_with_the_severity_of_its_kind(ledger):
    assert ledger.tell(
        "promotion", "promotion:er:3", "er 3 is the champion", organelle="er", data={"version": 3}
    )
    assert not ledger.tell("promotion", "promotion:er:3", "told again")
    (told,) = ledger.alerts("promotion")
    assert told.id.startswith("promotion-er-3-") and told.severity == "info" and told.data == {"version": 3}
    ledger.tell("failure", "run:1", "A run failed")
    assert ledger.alerts("failure")[0].severity == "error"


def test_without_addresses_alerts_go_to_the_log_once(ledger, caplog):
    ledger.write(alert(severity="error"))
    with caplog.at_level(logging.INFO, "cellabel.alerts"):
        assert ledger.deliver_pending().delivered == (("drift-P1", "log"),)
        assert ledger.deliver_pending().delivered == ()
    (record,) = caplog.records
    assert (
        record.levelno == logging.ERROR
        and "Plate P1 drifts" in record.message
        and "Alert drift-P1" in record.message
    )


def test_a_webhook_receives_each_alert_once_with_its_id(ledger, receiver):
    hook = receiver()
    ledger.write(alert(link="http://dagster/runs/1", data={"wells": 3}))
    for _ in range(2):
        ledger.deliver_pending([hook.url])
    (message,) = hook.messages
    assert message["title"] == "Plate P1 drifts" and message["type"] == "warning"
    assert message["message"].splitlines() == [
        "It looks like defocus.",
        '{"wells": 3}',
        "http://dagster/runs/1",
        "Alert drift-P1",
    ]


def test_a_second_address_gets_what_the_first_one_had_already(ledger, receiver):
    first, second = receiver(), receiver()
    ledger.write(alert())
    ledger.deliver_pending([first.url])
    ledger.deliver_pending([first.url, second.url])
    assert (len(first.messages), len(second.messages)) == (1, 1)


def test_a_receiver_that_is_down_gets_the_alert_when_it_is_back(ledger, receiver):
    hook = receiver(500, 503, 200)
    ledger.write(alert())
    assert [len(ledger.deliver_pending([hook.url]).failed) for _ in range(4)] == [1, 1, 0, 0]
    assert len(hook.messages) == 1


def test_a_dead_receiver_is_given_up_and_does_not_hold_up_the_others(ledger, receiver, caplog):
    dead, alive = receiver(500), receiver()
    ledger.write(alert())
    rounds = [ledger.deliver_pending([dead.url, alive.url], max_attempts=2) for _ in range(3)]
    assert [(len(one.failed), len(one.abandoned)) for one in rounds] == [(1, 0), (0, 1), (0, 0)]
    assert len(alive.messages) == 1
    assert "given up" in caplog.text and "hunter2" not in caplog.text


def test_an_address_that_apprise_does_not_know_is_a_failure_with_its_reason(ledger):
    ledger.write(alert())
    ((_, receiver_name, reason),) = ledger.deliver_pending(["pigeon://coop"]).failed
    assert receiver_name.startswith("pigeon-") and "does not know" in reason


def test_no_secret_of_an_address_is_written_anywhere(ledger, receiver):
    hook, down = receiver(), receiver(500)
    ledger.write(alert())
    ledger.deliver_pending([hook.url, down.url])
    files = [path for path in Path(ledger.root).rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any("hunter2" in str(path) or b"hunter2" in path.read_bytes() for path in files)


def test_a_crash_between_sending_and_marking_sends_again_with_the_same_id(ledger, receiver, monkeypatch):
    hook = receiver()
    ledger.write(alert())

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_mark", die)
        with pytest.raises(Killed):
            ledger.deliver_pending([hook.url])
    ledger.deliver_pending([hook.url])
    assert len({message["message"] for message in hook.messages}) == 1


def test_a_second_process_leaves_the_delivery_to_the_first(ledger, receiver):
    hook = receiver()
    ledger.write(alert())
    with FileLock(str(ledger.root / "deliver.lock")):
        assert ledger.deliver_pending([hook.url]).delivered == ()
    assert len(ledger.deliver_pending([hook.url]).delivered) == 2


def test_a_ledger_in_an_object_store_works_alike():
    ledger = AlertLedger("memory://alerts-test")
    assert ledger.write(alert()) and not ledger.write(alert())
    assert ledger.deliver_pending().delivered == (("drift-P1", "log"),)
    assert ledger.deliver_pending().delivered == ()
    ledger.acknowledge("drift-P1", "Ada")
    assert ledger.alerts(unacknowledged=True) == []


def test_importing_the_room_does_not_import_apprise():
    code = "import sys, cellabel.alerts; assert not {'apprise', 'mlflow', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_alerts_that_everyone_has_had_are_not_read_again(ledger, monkeypatch):
    for number in range(5):
        ledger.write(alert(f"drift-P{number}"))
    ledger.deliver_pending()
    ledger.write(alert("drift-P9"))
    read = []
    known = alert_ledger.read_json
    monkeypatch.setattr(alert_ledger, "read_json", lambda path: (read.append(path), known(path))[1])
    assert ledger.deliver_pending().delivered == (("drift-P9", "log"),)
    assert {path.name for path in read if path.parent.name == "alerts"} == {"drift-P9.json"}
