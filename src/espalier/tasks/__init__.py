"""A LightningModule per problem, and the callbacks that run methods and keep the journal of a step."""

from espalier.tasks.classification import Classification, NonFiniteLossError, accuracy
from espalier.tasks.forgetting_callback import ForgettingCallback
from espalier.tasks.journal import Journal
from espalier.tasks.method_callback import MethodCallback
from espalier.tasks.recalibration import batch_norms, recalibrated
from espalier.tasks.schedules import constant, cosine, cycles, restarts

__all__ = [
    "Classification",
    "ForgettingCallback",
    "Journal",
    "MethodCallback",
    "NonFiniteLossError",
    "accuracy",
    "batch_norms",
    "constant",
    "cosine",
    "cycles",
    "recalibrated",
    "restarts",
]
