from .acquisitions import TakenIn as TakenIn
from .acquisitions import look_at as look_at
from .acquisitions import take_in as take_in
from .agreements import exact_truth as exact_truth
from .agreements import measure_stain as measure_stain
from .cells import JoinedPlate as JoinedPlate
from .cells import join_plate as join_plate
from .diagnosis import Diagnosed as Diagnosed
from .diagnosis import diagnose_incident as diagnose_incident
from .encoder import FrozenEncoder as FrozenEncoder
from .encoder import embed_plate as embed_plate
from .encoder import encoder_sight as encoder_sight
from .encoder import open_encoder as open_encoder
from .epochs import FrozenStreams as FrozenStreams
from .epochs import follow_champion as follow_champion
from .epochs import freeze_encoder as freeze_encoder
from .inbox import (
    NewPlate as NewPlate,
)
from .inbox import (
    Refusal as Refusal,
)
from .inbox import (
    arrived_plates as arrived_plates,
)
from .inbox import (
    remember_done as remember_done,
)
from .incidents import (
    Request as Request,
)
from .incidents import (
    acknowledge_incident as acknowledge_incident,
)
from .incidents import (
    advance_incidents as advance_incidents,
)
from .incidents import (
    augmentation_of as augmentation_of,
)
from .incidents import (
    close_incident as close_incident,
)
from .incidents import (
    incidents as incidents,
)
from .incidents import (
    policy_of as policy_of,
)
from .incidents import (
    read_incident as read_incident,
)
from .incidents import (
    record_diagnosis as record_diagnosis,
)
from .incidents import (
    record_failed_diagnosis as record_failed_diagnosis,
)
from .incidents import (
    record_outcome as record_outcome,
)
from .incidents import (
    resume_incident as resume_incident,
)
from .incidents import (
    snooze_incident as snooze_incident,
)
from .judgements import (
    check_dataset as check_dataset,
)
from .judgements import (
    current_dataset as current_dataset,
)
from .judgements import (
    first_model_verdict as first_model_verdict,
)
from .judgements import (
    implausible_wells as implausible_wells,
)
from .judgements import (
    newest_held_out as newest_held_out,
)
from .judgements import (
    read_cross_validated as read_cross_validated,
)
from .judgements import (
    robustness_table as robustness_table,
)
from .judgements import (
    stain_errors as stain_errors,
)
from .predictions import (
    measure_prediction as measure_prediction,
)
from .predictions import (
    prediction_version as prediction_version,
)
from .predictions import (
    stale_predictions as stale_predictions,
)
from .predictions import (
    store_prediction as store_prediction,
)
from .promotion import judge_challenger as judge_challenger
from .promotion import tell_missing_champion as tell_missing_champion
from .ranking import rank_plate as rank_plate
from .ranking import report_prediction as report_prediction
from .reliability import refresh_intervals as refresh_intervals
from .shadow import Trial as Trial
from .shadow import watch_new_champion as watch_new_champion
from .status import PlateStatus as PlateStatus
from .status import plate_status as plate_status
from .status import read_champions as read_champions
from .streams import FollowedChampion as FollowedChampion
from .streams import followed_champion as followed_champion
from .training import (
    Challenger as Challenger,
)
from .training import (
    build_current_dataset as build_current_dataset,
)
from .training import (
    drifted_plates as drifted_plates,
)
from .training import (
    plates_for_training as plates_for_training,
)
from .training import (
    train_challenger as train_challenger,
)
from .watch import (
    PendingVerdict as PendingVerdict,
)
from .watch import (
    forget_pending as forget_pending,
)
from .watch import (
    latest_verdict as latest_verdict,
)
from .watch import (
    pending_verdicts as pending_verdicts,
)
from .watch import (
    stored_verdict as stored_verdict,
)
from .watch import (
    tick_drift as tick_drift,
)
