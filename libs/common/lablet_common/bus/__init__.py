"""Messaging: events over NATS JetStream, with retries, dead letters and rights per service."""

from lablet_common.bus.bus import Bus as Bus
from lablet_common.bus.connection import BusRefused as BusRefused
from lablet_common.bus.connection import BusUnavailable as BusUnavailable
from lablet_common.bus.consumer import Consumer as Consumer
from lablet_common.bus.follower import Follower as Follower
from lablet_common.bus.handling import Handler as Handler
from lablet_common.bus.handling import RetryPolicy as RetryPolicy
from lablet_common.bus.memory import MemoryBus as MemoryBus
from lablet_common.bus.messages import DeadLetter as DeadLetter
from lablet_common.bus.messages import Received as Received
from lablet_common.bus.seen import Seen as Seen
from lablet_common.bus.streams import DLQ_STREAM as DLQ_STREAM
from lablet_common.bus.streams import EVENTS_STREAM as EVENTS_STREAM
from lablet_common.bus.streams import INGRESS_STREAM as INGRESS_STREAM
from lablet_common.bus.streams import intents_stream as intents_stream
