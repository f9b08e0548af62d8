"""The store: etcd's semantics as a port (`api`), a real client (`etcd`), a twin in memory (`memory`), and what stands on
them: transactions as values, typed repositories, caches and leases."""

from lablet_common.store.api import Behind as Behind
from lablet_common.store.api import Compacted as Compacted
from lablet_common.store.api import Compare as Compare
from lablet_common.store.api import Delete as Delete
from lablet_common.store.api import EventType as EventType
from lablet_common.store.api import Get as Get
from lablet_common.store.api import InvalidRequest as InvalidRequest
from lablet_common.store.api import KeyValue as KeyValue
from lablet_common.store.api import LeaseLost as LeaseLost
from lablet_common.store.api import Operation as Operation
from lablet_common.store.api import OutcomeUnknown as OutcomeUnknown
from lablet_common.store.api import Page as Page
from lablet_common.store.api import Put as Put
from lablet_common.store.api import Store as Store
from lablet_common.store.api import StoreError as StoreError
from lablet_common.store.api import StoreStatus as StoreStatus
from lablet_common.store.api import StoreUnavailable as StoreUnavailable
from lablet_common.store.api import Target as Target
from lablet_common.store.api import TxnResult as TxnResult
from lablet_common.store.api import WatchBatch as WatchBatch
from lablet_common.store.api import WatchEvent as WatchEvent
from lablet_common.store.etcd import EtcdStore as EtcdStore
from lablet_common.store.lease import LeaseKeeper as LeaseKeeper
from lablet_common.store.memory import MemoryStore as MemoryStore
from lablet_common.store.transaction import Conflict as Conflict
from lablet_common.store.transaction import Transaction as Transaction
from lablet_common.store.transaction import settle as settle
