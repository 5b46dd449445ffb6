"""Drift: has what the model sees changed, since when, into what, and does it harm?

Arrays in, verdicts out, on numpy and scipy alone. `OnlineMMD` watches one stream of embeddings and keeps its
promise of false alarms; `StreamBank` keeps it for several together. `InstrumentWatch` ticks all streams of an
instrument plate by plate, exactly once each; `HarmModel` estimates what a drift costs and `diagnose` names
its likely cause; `incidents` says what to do about it. `mmd_permutation_test` is the offline test.
"""

from cellabel.drift import incidents
from cellabel.drift._bank import StreamBank
from cellabel.drift._diagnosis import Diagnosis, diagnose
from cellabel.drift._margin import leave_plate_out_margin
from cellabel.drift._online import OnlineMMD, Step
from cellabel.drift._permutation import PermutationTest, mmd_permutation_test
from cellabel.drift._report import FitReport, RunLength
from cellabel.drift._run_length import expected_run_time, false_alarm_share, run_length
from cellabel.drift.harm import Harm, HarmModel
from cellabel.drift.incidents import Action, Incident, Policy, Retraining, decide
from cellabel.drift.streams import Epoch, InstrumentWatch, PlateObservation, PlateVerdict, StreamVerdict

__all__ = [
    "OnlineMMD",
    "Step",
    "FitReport",
    "RunLength",
    "run_length",
    "expected_run_time",
    "false_alarm_share",
    "StreamBank",
    "leave_plate_out_margin",
    "mmd_permutation_test",
    "PermutationTest",
    "InstrumentWatch",
    "PlateObservation",
    "PlateVerdict",
    "StreamVerdict",
    "Epoch",
    "HarmModel",
    "Harm",
    "diagnose",
    "Diagnosis",
    "incidents",
    "Incident",
    "Policy",
    "Action",
    "Retraining",
    "decide",
]
