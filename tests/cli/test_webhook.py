import json
import urllib.error
import urllib.request

import apprise
import pytest

from cellabel.cli._webhook import Webhook


def post(webhook, body):
    address = webhook.url.replace("json://", "http://")
    return urllib.request.urlopen(urllib.request.Request(address, data=body), timeout=10)


def test_what_apprise_sends_becomes_a_line_of_the_file(tmp_path):
    with Webhook(tmp_path / "webhook.jsonl") as webhook:
        sender = apprise.Apprise()
        sender.add(webhook.url)
        assert sender.notify(title="Drift in P1", body="from well A01 on")
        (alert,) = webhook.received
    assert (alert["title"], alert["message"]) == ("Drift in P1", "from well A01 on")
    assert json.loads((tmp_path / "webhook.jsonl").read_text()) == alert


def test_what_is_not_json_is_refused_and_not_kept(tmp_path):
    with Webhook(tmp_path / "webhook.jsonl") as webhook:
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(webhook, b"hello")
        assert webhook.received == []


def test_nobody_listens_after_the_block(tmp_path):
    with Webhook(tmp_path / "webhook.jsonl") as webhook:
        assert post(webhook, b"{}").status == 204
    with pytest.raises(urllib.error.URLError):
        post(webhook, b"{}")
