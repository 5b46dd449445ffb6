"""From a verdict to an incident, a diagnosis, and what the policy lets follow from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cellabel.drift import Diagnosis, PlateVerdict, StreamVerdict
from cellabel.drift.harm import Harm
from cellabel.errors import InputError
from cellabel.loop.incidents import (
    acknowledge_incident,
    advance_incidents,
    augmentation_of,
    close_incident,
    incidents,
    observe_verdict,
    policy_of,
    read_incident,
    record_diagnosis,
    record_failed_diagnosis,
    record_outcome,
    resume_incident,
    snooze_incident,
)
from cellabel.loop.streams import judging_times, watch_index
from cellabel.stores import write_json

NOW = datetime(2025, 3, 3, 8, tzinfo=UTC)
HARMFUL = Harm(0.4, 0.3, 0.5, "harmful", 8, 8)
HARMLESS = Harm(0.01, 0.0, 0.02, "harmless", 0, 8)
UNKNOWN = Harm(0.2, 0.0, 0.5, "unknown", 0, 8)
DEFOCUS = Diagnosis("defocus", 2.2, 0.93, "looks like defocus, radius ≈ 1.8 px", 0.1)
AT_ONCE = {"at_once": True, "on_provisional": True}


def verdict(plate="P1", *, drift=True, harm=HARMFUL, alarms=8, provisional=True, instrument="scope"):
    """What the streams of nuclei and of the images as acquired say."""
    said = StreamVerdict(
        "drift" if drift else "no",
        epoch=1,
        provisional=provisional,
        statistic=1.0,
        threshold=0.5,
        n_alarms=alarms if drift else 0,
        n_wells=8,
        first_well="A03" if drift else None,
        change_id=f"{plate}/A03" if drift else None,
    )
    nuclei = StreamVerdict(**{**vars(said), "harm": harm})
    return PlateVerdict.of(instrument, plate, {"acquisition": said, "nuclei": nuclei})


@pytest.fixture
def floor(make_lab):
    """Stores under a policy, and what one does there by the hour."""

    class Floor:
        def __init__(self, **retraining):
            self.lab = make_lab(retraining=retraining)
            self.home, self.ledger = self.lab.home, self.lab.ledger

        def see(self, *args, hour=0.0, **kwargs):
            one = verdict(*args, **kwargs)
            at = NOW + timedelta(hours=hour)
            found = observe_verdict(self.home, self.ledger, one.instrument, one, at)
            content = {"instrument": one.instrument, "at": at.isoformat(), "event_id": one.event_id}
            write_json(self.home.detectors / "verdicts" / f"{one.plate}.json", content)
            judged = {one.plate: at.isoformat(), **judging_times(self.home, one.instrument)}
            write_json(watch_index(self.home, one.instrument), {"judged": judged})
            return found

        def advance(self, hour=0.0):
            return advance_incidents(self.home, self.ledger, now=NOW + timedelta(hours=hour))

        def diagnose(self, diagnosis=DEFOCUS, hour=0.0):
            (request,) = self.advance(hour)
            assert request.kind == "diagnose"
            record_diagnosis(self.home, self.incident, diagnosis)
            return self.advance(hour)

        @property
        def incident(self):
            return incidents(self.home)[-1]

        def alerts(self, kind=None):
            return self.ledger.alerts(kind)

    return Floor


def test_a_plate_without_drift_opens_nothing(floor):
    here = floor()
    assert here.see(drift=False) is None
    assert incidents(here.home) == [] and here.advance() == [] and here.alerts() == []


def test_a_drifted_plate_opens_an_incident_that_is_told_and_diagnosed(floor):
    here = floor()
    opened = here.see()
    assert opened == here.incident == read_incident(here.home, opened.id)
    (alert,) = here.alerts()
    assert (alert.kind, alert.severity, alert.plate) == ("drift", "warning", "P1")
    assert "P1/A03" in alert.body and "provisional" in alert.body and alert.data["incident"] == opened.id
    (request,) = here.advance()
    assert request.key == f"diagnose:{opened.id}:1" and here.incident.status == "diagnosing"


def test_the_same_verdict_again_changes_and_tells_nothing(floor):
    here = floor()
    here.see()
    here.advance()
    before = here.lab.snapshot()
    here.see(hour=1)
    assert {name: value for name, value in here.lab.snapshot().items() if "verdicts" not in name} == {
        name: value for name, value in before.items() if "verdicts" not in name
    }


def test_a_request_repeats_under_its_key_until_a_result_is_there(floor):
    here = floor()
    here.see()
    keys = {request.key for hour in range(5) for request in here.advance(hour)}
    assert len(keys) == 1
    record_diagnosis(here.home, here.incident, DEFOCUS)
    assert here.advance(6) == [] and here.incident.diagnosis == DEFOCUS


def test_a_harmful_drift_of_known_cause_retrains_at_once_where_that_is_allowed(floor):
    here = floor(**AT_ONCE)
    here.see()
    (request,) = here.diagnose()
    assert (request.kind, request.key) == ("retrain", f"retrain:{here.incident.id}:1")
    assert request.incident.most_harmed == "nuclei" and "defocus" in request.reason
    assert [one.key for one in here.advance(1)] == [request.key]
    assert augmentation_of(request.incident) == ("defocus", (1, 2, 3))


def test_by_default_a_person_is_asked_to_mend_the_microscope_first(floor):
    here = floor()
    here.see(provisional=False)
    assert here.diagnose() == []
    (asked,) = here.alerts("person_needed")
    assert asked.title.startswith("Please image again") and "Defocus" in asked.body
    assert here.advance(1) == [] and len(here.alerts("person_needed")) == 1
    here.see("P2", provisional=False, hour=2)
    (request,) = here.diagnose(hour=2)
    assert request.kind == "retrain", "a later plate has drifted all the same"


def test_a_provisional_verdict_alone_asks_for_a_person(floor):
    here = floor(at_once=True)
    here.see()
    assert here.diagnose() == [] and here.incident.status == "person_needed"
    assert "provisional" in here.alerts("person_needed")[0].body


@pytest.mark.parametrize(
    ("diagnosis", "harm"),
    [
        (Diagnosis(None, None, 0.9, "looks like none of these"), HARMFUL),
        (Diagnosis("defocus", 2.0, 0.5, "may be defocus"), HARMFUL),
        (DEFOCUS, UNKNOWN),
        (DEFOCUS, None),
    ],
)
def test_nothing_is_retrained_on_guesses(floor, diagnosis, harm):
    here = floor(**AT_ONCE)
    here.see(harm=harm)
    assert here.diagnose(diagnosis) == []
    assert [alert.kind for alert in here.alerts("labels_needed")] == ["labels_needed"]
    assert here.advance(1) == [] and len(here.alerts("labels_needed")) == 1


def test_a_harmless_drift_is_told_and_left_alone(floor):
    here = floor(**AT_ONCE)
    here.see(harm=HARMLESS)
    assert here.diagnose() == [] and here.incident.status == "told"
    assert [alert.kind for alert in here.alerts()] == ["drift"]


def test_without_automatic_retraining_none_is_asked_for(floor):
    here = floor(automatic=False, **AT_ONCE)
    here.see()
    assert here.diagnose() == []
    assert policy_of(here.home.settings).max_retrainings_per_week == 0


def test_a_diagnosis_that_fails_asks_for_labels(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.advance()
    record_failed_diagnosis(here.home, here.incident)
    assert here.advance() == [] and len(here.alerts("labels_needed")) == 1


def test_a_failure_that_is_noticed_late_does_not_replace_a_diagnosis(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.advance()
    record_diagnosis(here.home, here.incident, DEFOCUS)
    record_failed_diagnosis(here.home, here.incident)
    assert [one.kind for one in here.advance()] == ["retrain"]


def test_a_promotion_ends_the_retraining_and_rests(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "promoted", 2)
    assert here.advance(1) == []
    (done,) = here.incident.retrainings
    assert (done.outcome, done.version, here.incident.status) == ("promoted", "2", "told")
    here.see("P2", hour=2)
    assert here.diagnose(hour=2) == [], "the cool-down is not over"
    assert [one.key for one in here.advance(24 * 8 + 2)] == [f"retrain:{here.incident.id}:2"]


def test_the_cool_down_is_over_after_five_plates_as_well(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "promoted", 2)
    here.advance(1)
    for turn in range(5):
        here.see(f"Q{turn}", hour=2 + turn, drift=turn == 0)
        if turn == 0:
            here.diagnose(hour=2)
        assert (here.advance(2 + turn) == []) is (turn < 4)


def test_a_challenger_that_loses_leaves_it_to_a_person(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "lost", 2)
    assert here.advance(1) == [] and here.incident.status == "person_needed"
    assert "lost" in here.alerts("person_needed")[0].body
    assert here.advance(24 * 30) == []


def test_retrainings_that_fail_are_tried_again_as_often_as_is_allowed(floor):
    here = floor(**AT_ONCE, cooldown_days=0, max_per_week=5, max_per_cause=2)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "failed")
    assert [one.key for one in here.advance(1)] == [f"retrain:{here.incident.id}:2"]
    record_outcome(here.home, here.incident.id, "failed")
    assert here.advance(2) == [] and here.incident.status == "person_needed"
    assert [one.outcome for one in here.incident.retrainings] == ["failed", "failed"]


def test_the_first_outcome_of_a_retraining_stays(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "promoted", 2)
    record_outcome(here.home, here.incident.id, "failed")
    here.advance(1)
    assert here.incident.retrainings[0].outcome == "promoted"


def test_an_old_outcome_does_not_end_a_later_retraining(floor):
    here = floor(**AT_ONCE, cooldown_days=0, max_per_week=5, max_per_cause=3)
    here.see()
    here.diagnose()
    record_outcome(here.home, here.incident.id, "failed")
    (second,) = here.advance(1)
    assert [one.key for one in here.advance(2)] == [second.key] and here.incident.status == "retraining"


def test_one_retraining_at_a_time(floor):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose()
    here.see("Q1", instrument="other", hour=1)
    keys = {one.kind for one in here.advance(1)}
    assert keys == {"retrain", "diagnose"}
    other = next(one for one in incidents(here.home) if one.instrument == "other")
    record_diagnosis(here.home, other, DEFOCUS)
    assert {one.incident.instrument for one in here.advance(2)} == {"scope"}


def test_persistence_and_escalation_are_told_once_each(floor):
    here = floor()
    for turn, alarms in enumerate((1, 1, 1, 1)):
        here.see(f"P{turn}", hour=turn, alarms=alarms)
        here.see(f"P{turn}", hour=turn, alarms=alarms)
    titles = sorted(alert.title for alert in here.alerts("drift"))
    assert len(titles) == 3 and here.incident.severity == "ERROR" and here.incident.escalated
    assert [title for title in titles if title.startswith("3 plates have drifted")]
    assert [title for title in titles if title.startswith("The drift persists in P1")]


def test_an_acknowledged_incident_ends_with_quiet_plates_and_a_later_drift_opens_another(floor):
    here = floor()
    first = here.see()
    for name in ("Q1", "Q2", "Q3"):
        here.see(name, drift=False)
    assert here.incident.is_open, "nobody has seen it"
    acknowledge_incident(here.home, first.id, "ada")
    assert here.advance(1) == []
    assert (here.incident.status, here.incident.acknowledged_by) == ("closed", "ada")
    here.see("P9", hour=2)
    assert [one.is_open for one in incidents(here.home)] == [False, True]


def test_a_verdict_that_an_earlier_incident_has_taken_in_goes_into_no_other(floor):
    here = floor()
    acknowledge_incident(here.home, here.see().id, "ada")
    here.advance()
    for name in ("Q1", "Q2"):
        here.see(name, drift=False)
    here.see("P2", hour=1)
    before = [one.to_dict() for one in incidents(here.home)]
    assert len(before) == 2
    for name, drift in (("Q1", False), ("Q2", False), ("P2", True)):  # a tick that was killed, run again
        here.see(name, drift=drift, hour=1)
    assert [one.to_dict() for one in incidents(here.home)] == before


def test_a_snoozed_incident_asks_for_nothing_until_its_time_or_until_a_person_resumes_it(floor):
    here = floor()
    opened = here.see()
    assert snooze_incident(here.home, opened.id, "ada", NOW + timedelta(hours=5)).snoozed_until
    assert here.advance(1) == [] and here.advance(4.9) == []
    assert [request.kind for request in here.advance(5.1)] == ["diagnose"]
    record_diagnosis(here.home, here.incident, DEFOCUS)
    snooze_incident(here.home, opened.id, "ada", NOW + timedelta(hours=99))
    assert here.advance(6) == [] and here.alerts("person_needed") == []
    assert resume_incident(here.home, opened.id, "ada").snoozed_until is None
    here.advance(7)
    assert len(here.alerts("person_needed")) == 1


def test_a_person_who_has_done_what_was_asked_is_asked_again_only_if_it_did_not_help(floor):
    here = floor()
    opened = here.see()
    here.diagnose(Diagnosis(None, None, 0.9, "looks like none of the known causes"))
    assert here.incident.status == "person_needed" and len(here.alerts("labels_needed")) == 1
    assert resume_incident(here.home, opened.id, "ada").status == "told"
    here.advance(2)
    assert here.incident.status == "person_needed" and len(here.alerts("labels_needed")) == 2
    other = here.see("P2", instrument="other")
    with pytest.raises(InputError, match="waits for nobody"):
        resume_incident(here.home, other.id, "ada")


def test_what_a_person_closes_is_closed_at_once_and_told_once(floor):
    here = floor()
    opened = here.see()
    assert close_incident(here.home, opened.id, "ada", "the stage was bumped").closed_by == "ada"
    assert not here.incident.is_open
    assert here.see("P2", hour=1).id != opened.id, "the next drift opens another before the next look"
    for hour in (2, 3):
        here.advance(hour)
    over = [alert for alert in here.alerts("drift") if alert.severity == "info"]
    assert [alert.body for alert in over] == ["Closed by ada: the stage was bumped."]
    with pytest.raises(InputError, match="was closed by ada"):
        close_incident(here.home, opened.id, "bo", "again")


def test_alerts_link_to_the_plate_in_dagster(floor):
    here = floor()
    here.see()
    (alert,) = here.alerts()
    assert alert.link == "http://127.0.0.1:3000/assets/nuclei/drift?view=partitions&partition=P1"


def test_a_stranger_is_refused_by_name(floor):
    here = floor()
    opened = here.see()
    for refused in (
        lambda: read_incident(here.home, "nobody"),
        lambda: acknowledge_incident(here.home, "nobody", "ada"),
        lambda: record_outcome(here.home, "nobody", "lost"),
    ):
        with pytest.raises(InputError, match=rf"no drift incident 'nobody'; there are: {opened.id}"):
            refused()
    with pytest.raises(InputError, match="no known cause"):
        augmentation_of(opened)


@pytest.mark.parametrize(
    ("diagnosis", "expected"),
    [
        (Diagnosis("exposure", -2.0, 0.9, "darker", corruption="brightness"), ("brightness", (-3, -2, -1))),
        (Diagnosis("defocus", 5.0, 0.9, "blurred"), ("defocus", (4, 5))),
        (Diagnosis("contrast", 0.6, 0.9, "flat"), ("contrast", (1, 2))),
        (Diagnosis("defocus", 0.3, 0.9, "hardly"), ("defocus", (1, 2))),
        (Diagnosis("defocus", 8.7, 0.9, "beyond the table"), ("defocus", (4, 5))),
    ],
)
def test_augmentation_surrounds_what_was_diagnosed(floor, diagnosis, expected):
    here = floor(**AT_ONCE)
    here.see()
    here.diagnose(diagnosis)
    assert augmentation_of(here.incident) == expected
