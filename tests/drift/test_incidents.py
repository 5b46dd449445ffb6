import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellabel.drift import (
    Diagnosis,
    Harm,
    Incident,
    PlateVerdict,
    Policy,
    Retraining,
    StreamVerdict,
    incidents,
)
from cellabel.drift.incidents import (
    acknowledge,
    act,
    close,
    count_plate,
    decide,
    diagnosed,
    observe,
    resume,
    retrained,
    snooze,
)

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DEFOCUS = Diagnosis("defocus", 3.0, 0.95, "looks like defocus, radius ≈ 1.5 px (severity 3)")
NOTHING = Diagnosis(None, None, 0.9, "looks like none of the known causes")
AT_ONCE = Policy(retrain_at_once=True)


def stream(status="drift", alarms=10, harm="harmful", loss=0.2, provisional=False, epoch=1):
    if status != "drift":
        return StreamVerdict(status, epoch=epoch, n_wells=24, provisional=provisional)
    estimate = None
    if harm:
        estimate = Harm(loss, loss * 0.8, loss * 1.2, harm, alarms if harm == "harmful" else 0, 24)
    return StreamVerdict(
        "drift",
        epoch=epoch,
        provisional=provisional,
        n_alarms=alarms,
        n_wells=24,
        first_well="C05",
        harm=estimate,
    )


def verdict(plate, **streams):
    return PlateVerdict.of("scope", plate, streams or {"er": stream()})


def opened(policy=AT_ONCE, diagnosis=DEFOCUS, **kwargs):
    incident = observe(None, verdict("P1", er=stream(**kwargs)), policy, NOW)
    incident = act(incident, decide(incident, policy, [], NOW), NOW)
    return diagnosed(incident, diagnosis, policy) if diagnosis else incident


def kind(incident, policy=AT_ONCE, history=(), now=NOW):
    return decide(incident, policy, history, now).kind


def test_a_clean_plate_opens_nothing_and_a_drifted_one_opens_one_incident():
    assert observe(None, verdict("P0", er=stream("no")), AT_ONCE, NOW) is None
    first = observe(None, verdict("P1", er=stream(alarms=2)), AT_ONCE, NOW)
    assert first.severity == "WARN" and first.status == "open" and first.wells == ("P1/C05",)
    assert observe(None, verdict("P1", er=stream(alarms=2)), AT_ONCE, NOW + timedelta(1)).id == first.id
    assert observe(None, verdict("P1", er=stream(alarms=2, epoch=2)), AT_ONCE, NOW).id != first.id


def test_a_second_plate_joins_the_incident_and_makes_it_an_error():
    first = observe(None, verdict("P1", er=stream(alarms=2)), AT_ONCE, NOW)
    second = observe(first, verdict("P2", golgi=stream(alarms=1, loss=0.5)), AT_ONCE, NOW)
    assert second.id == first.id and second.severity == "ERROR"
    assert (
        second.plates == ("P1", "P2") and second.streams == ("er", "golgi") and second.most_harmed == "golgi"
    )


@pytest.mark.parametrize(("alarms", "severity"), [(7, "WARN"), (8, "ERROR")])
def test_eight_of_twenty_four_wells_persist(alarms, severity):
    assert observe(None, verdict("P1", er=stream(alarms=alarms)), AT_ONCE, NOW).severity == severity


def test_the_same_verdict_taken_in_twice_is_taken_in_once():
    first = observe(None, verdict("P1"), AT_ONCE, NOW)
    assert observe(first, verdict("P1"), AT_ONCE, NOW) == first


def test_a_known_harmful_persistent_drift_is_diagnosed_and_then_retrained_against():
    incident = observe(None, verdict("P1"), AT_ONCE, NOW)
    action = decide(incident, AT_ONCE, [], NOW)
    assert action.kind == "diagnose" and decide(incident, AT_ONCE, [], NOW) == action
    incident = act(incident, action, NOW)
    assert incident.status == "diagnosing" and kind(incident) == "wait"
    incident = diagnosed(incident, DEFOCUS, AT_ONCE)
    action = decide(incident, AT_ONCE, [], NOW)
    assert action.kind == "retrain" and "looks like defocus" in action.reason
    incident = act(incident, action, NOW)
    assert incident.status == "retraining" and kind(incident) == "wait"
    incident = retrained(incident, "promoted", NOW, "7")
    assert incident.retrainings[0].version == "7" and incident.status == "told"
    assert retrained(incident, "lost", NOW) == incident


def test_a_cause_to_mend_at_the_microscope_is_asked_about_first():
    policy = Policy()
    incident = opened(policy)
    assert kind(incident, policy) == "ask_to_image_again"
    incident = act(incident, decide(incident, policy, [], NOW), NOW)
    assert kind(incident, policy) == "wait"
    incident = observe(incident, verdict("P2"), policy, NOW)
    incident = diagnosed(act(incident, decide(incident, policy, [], NOW), NOW), DEFOCUS, policy)
    assert kind(incident, policy) == "retrain"


def test_an_unknown_or_uncertain_cause_or_unknown_harm_asks_for_labels_and_never_retrains():
    unsure = Diagnosis("defocus", 3.0, 0.79, "looks like defocus")
    for incident in (
        opened(diagnosis=NOTHING),
        opened(diagnosis=unsure),
        opened(harm="unknown"),
        opened(harm=None),
    ):
        action = decide(incident, AT_ONCE, [], NOW)
        assert action.kind == "ask_for_labels"
        incident = act(incident, action, NOW)
        assert incident.status == "person_needed" and kind(incident) == "wait"


def test_harmless_drift_is_told_and_nothing_else():
    assert kind(opened(harm="harmless")) == "none"


def test_acquisition_drift_takes_its_harm_from_the_organelles():
    harmless = StreamVerdict("no", n_wells=24, harm=Harm(0.01, 0.0, 0.02, "harmless", 0, 24))
    incident = observe(None, verdict("P1", acquisition=stream(harm=None), er=harmless), AT_ONCE, NOW)
    assert incident.harm == "harmless"
    incident = observe(None, verdict("P1", acquisition=stream(harm=None)), AT_ONCE, NOW)
    assert incident.harm == "unknown"


def test_one_plate_with_few_harmed_wells_waits_for_a_second():
    incident = opened(alarms=3)
    assert kind(incident) == "wait"
    incident = observe(incident, verdict("P2", er=stream(alarms=1)), AT_ONCE, NOW)
    assert kind(incident) == "diagnose"
    incident = diagnosed(act(incident, decide(incident, AT_ONCE, [], NOW), NOW), DEFOCUS, AT_ONCE)
    assert kind(incident) == "retrain"


def test_a_provisional_verdict_needs_a_person_unless_the_setting_says_otherwise():
    assert kind(opened(provisional=True)) == "person_needed"
    assert (
        kind(opened(provisional=True), Policy(retrain_at_once=True, retrain_on_provisional=True)) == "retrain"
    )
    mixed = observe(opened(provisional=True), verdict("P2"), AT_ONCE, NOW)
    assert not mixed.provisional


def past(days_ago, cause="dust", instrument="scope", outcome="promoted", incident="old", plates_since=0):
    at = NOW - timedelta(days=days_ago)
    finished = None if outcome == "running" else at
    return Retraining(incident, instrument, cause, at, outcome, finished, plates_since=plates_since)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], "retrain"),
        ([past(0.1, outcome="running", instrument="other")], "wait"),
        ([past(6.9)], "wait"),
        ([past(7.1)], "retrain"),
        ([past(3, plates_since=5)], "retrain"),
        ([past(3, instrument="other")], "retrain"),
        ([past(3, instrument="other"), past(4, instrument="another")], "wait"),
        ([past(30, "defocus"), past(60, "defocus")], "person_needed"),
        ([past(30, "defocus"), past(60, "defocus", instrument="other")], "retrain"),
        ([past(30, "defocus", outcome="lost")], "retrain"),
    ],
)
def test_cool_downs_and_limits_hold(history, expected):
    assert kind(opened(), history=history) == expected


def test_a_challenger_that_lost_calls_a_person_and_the_cause_does_not_retrain_again():
    incident = opened()
    incident = retrained(act(incident, decide(incident, AT_ONCE, [], NOW), NOW), "lost", NOW)
    later = NOW + timedelta(days=90)
    assert kind(incident, now=later) == "person_needed"
    incident = act(incident, decide(incident, AT_ONCE, [], later), later)
    assert kind(incident, now=later) == "wait"
    assert kind(resume(incident, "ana"), now=later) == "person_needed"


def test_another_cause_is_noticed_after_a_person_was_asked():
    incident = opened(diagnosis=NOTHING)
    incident = act(incident, decide(incident, AT_ONCE, [], NOW), NOW)
    incident = observe(incident, verdict("P2"), AT_ONCE, NOW)
    assert kind(incident) == "diagnose"
    incident = act(incident, decide(incident, AT_ONCE, [], NOW), NOW)
    assert incident.status == "person_needed"
    incident = diagnosed(incident, DEFOCUS, AT_ONCE)
    assert incident.causes == ("defocus",) and kind(incident) == "retrain"
    unsure = diagnosed(incident, NOTHING, AT_ONCE)
    assert unsure.diagnosis == DEFOCUS


def test_the_third_plate_escalates():
    incident = opened()
    for plate in ("P2", "P3"):
        assert not incident.escalated
        incident = observe(incident, verdict(plate), AT_ONCE, NOW)
    assert incident.escalated


def test_an_incident_is_latched_until_acknowledged_and_closed_by_the_frozen_streams_alone():
    blind = {"er": stream("no"), "encoder": stream(harm=None)}
    calm = {"er": stream("no"), "encoder": stream("no"), "acquisition": stream("no")}
    incident = acknowledge(opened(), "ana", AT_ONCE)
    incident = observe(incident, verdict("P2", er=stream("no")), AT_ONCE, NOW)
    incident = observe(incident, verdict("P3", **blind), AT_ONCE, NOW)
    assert incident.is_open and incident.quiet == 0
    incident = observe(incident, verdict("P4", **calm), AT_ONCE, NOW)
    assert incident.is_open and incident.quiet == 1
    assert observe(incident, verdict("P5", **calm), AT_ONCE, NOW).status == "closed"

    half = {"er": stream("no"), "encoder": stream("not_calibrated"), "acquisition": stream("no")}
    unseen = observe(incident, verdict("P5", **half), AT_ONCE, NOW)
    assert unseen.is_open and unseen.quiet == 1, "a plate that the encoder has not seen says nothing"
    assert observe(unseen, verdict("P6", **calm), AT_ONCE, NOW).status == "closed"

    latched = opened()
    for plate in ("P2", "P3", "P4"):
        latched = observe(latched, verdict(plate, **calm), AT_ONCE, NOW)
    assert latched.is_open
    assert acknowledge(latched, "ana", AT_ONCE).closed_by == "return to reference"


def test_a_person_closes_at_once_and_the_next_drift_opens_another():
    closed = close(opened(), "ana", "stage was bumped")
    assert kind(closed) == "none"
    assert observe(closed, verdict("P1"), AT_ONCE, NOW) == closed
    assert observe(closed, verdict("P2"), AT_ONCE, NOW).id != closed.id


def test_a_snooze_waits_and_ends():
    incident = snooze(opened(), NOW + timedelta(days=2))
    assert kind(incident) == "wait" and kind(incident, now=NOW + timedelta(days=2)) == "retrain"


def test_plates_age_the_retrainings_of_their_instrument():
    aged = count_plate([past(3), past(3, instrument="other"), past(1, outcome="running")], "scope")
    assert [one.plates_since for one in aged] == [1, 0, 0]


def test_every_incident_survives_json():
    incident = opened()
    incident = act(incident, decide(incident, AT_ONCE, [], NOW), NOW)
    incident = snooze(acknowledge(retrained(incident, "failed", NOW), "ana", AT_ONCE), NOW)
    assert Incident.from_dict(json.loads(json.dumps(incident.to_dict()))) == incident


events = st.one_of(
    st.tuples(
        st.just("plate"),
        st.integers(1, 6),
        st.booleans(),
        st.sampled_from(["harmful", "unknown", "harmless"]),
    ),
    st.tuples(st.just("decide")),
    st.tuples(st.just("diagnosed"), st.sampled_from([DEFOCUS, NOTHING])),
    st.tuples(st.just("retrained"), st.sampled_from(["promoted", "lost", "failed"])),
    st.tuples(st.just("acknowledge")),
    st.tuples(st.just("time"), st.integers(1, 10)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=40), st.booleans())
def test_whatever_happens_no_cause_retrains_without_rest_or_beyond_its_limit(script, at_once):
    policy, now, incident, begun = Policy(retrain_at_once=at_once), NOW, None, []
    for event in script:
        if event[0] == "time":
            now += timedelta(days=event[1])
        elif event[0] == "plate":
            status = stream(harm=event[3]) if event[2] else stream("no")
            incident = observe(incident, verdict(f"P{event[1]}", er=status), policy, now)
        elif incident is None:
            continue
        elif event[0] == "decide":
            action = decide(incident, policy, [], now)
            assert action.reason.endswith(".")
            if action.kind == "retrain":
                assert incident.harm == "harmful" and incident.causes and begun[-1:] != [now]
                assert all(now - earlier >= timedelta(days=7) for earlier in begun)
                begun.append(now)
            incident = act(incident, action, now)
            assert decide(incident, policy, [], now).kind != "retrain"
        elif event[0] == "diagnosed":
            incident = diagnosed(incident, event[1], policy)
        elif event[0] == "retrained":
            incident = retrained(incident, event[1], now)
        else:
            incident = acknowledge(incident, "ana", policy)
        if incident is not None:
            assert Incident.from_dict(incident.to_dict()) == incident
    assert len(begun) <= policy.max_retrainings_per_cause


def test_everything_named_is_there():
    assert all(hasattr(incidents, name) for name in incidents.__all__)
