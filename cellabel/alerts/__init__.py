"""The ledger of alerts: written once, delivered at least once, acknowledged by a person.

An alert is a small file named by a deterministic id, so a step that is repeated after a crash tells nothing
twice. Delivery goes through apprise and carries the id, by which a receiver drops a repeat.
"""

from cellabel.alerts._alert import KINDS, SEVERITIES, Acknowledgement, Alert, alert_id
from cellabel.alerts._ledger import AlertLedger, Delivery

__all__ = ["KINDS", "SEVERITIES", "Acknowledgement", "Alert", "AlertLedger", "Delivery", "alert_id"]
