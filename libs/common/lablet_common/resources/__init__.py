"""The domain: kinds of resources, their state machines, and where they lie.

Stands on pydantic alone, so that the client shares it with the services.
"""

from lablet_common.resources.artifact import Artifact as Artifact
from lablet_common.resources.definition import Definition as Definition
from lablet_common.resources.instance import Instance as Instance
from lablet_common.resources.instance import instance_id as instance_id
from lablet_common.resources.kinds import KINDS as KINDS
from lablet_common.resources.kinds import Kind as Kind
from lablet_common.resources.kinds import Service as Service
from lablet_common.resources.machine import IllegalTransition as IllegalTransition
from lablet_common.resources.machine import StateMachine as StateMachine
from lablet_common.resources.model import Condition as Condition
from lablet_common.resources.model import Metadata as Metadata
from lablet_common.resources.model import Resource as Resource
from lablet_common.resources.request import Problem as Problem
from lablet_common.resources.request import Request as Request
from lablet_common.resources.reservation import Reservation as Reservation
from lablet_common.resources.reservation import Slot as Slot
from lablet_common.resources.series import Series as Series
from lablet_common.resources.worker import Worker as Worker
from lablet_common.resources.worker import WorkerPool as WorkerPool
from lablet_common.resources.worker import WorkerTemplate as WorkerTemplate
