"""Lablet's CloudEvents: what types exist, how a commit becomes events, and how an event lies in a NATS message.

Everything here is a pure function of values; nothing connects anywhere.
"""

from cloudevents.core.v1.event import CloudEvent as CloudEvent

from lablet_common.events.binding import InvalidEvent as InvalidEvent
from lablet_common.events.catalogue import EVENTS as EVENTS
from lablet_common.events.catalogue import EventType as EventType
from lablet_common.events.derive import Outgoing as Outgoing
from lablet_common.events.derive import derive as derive
from lablet_common.events.derive import message_id as message_id
from lablet_common.events.reading import data_of as data_of
from lablet_common.events.reading import is_intent as is_intent
from lablet_common.events.reading import kind_and_id as kind_and_id
from lablet_common.events.reading import resource_of as resource_of
from lablet_common.events.reading import sequence_of as sequence_of
from lablet_common.events.schemas import schemas as schemas
