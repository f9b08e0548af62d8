"""A world that a seed decides: an event loop in virtual time, and ways to the twins on which everything goes wrong."""

from lablet_common.testing.simulation.line import Dead as Dead
from lablet_common.testing.simulation.line import Line as Line
from lablet_common.testing.simulation.line import Weather as Weather
from lablet_common.testing.simulation.loop import SimulationLoop as SimulationLoop
from lablet_common.testing.simulation.loop import simulated as simulated
from lablet_common.testing.simulation.port import Port as Port
from lablet_common.testing.simulation.store import Note as Note
from lablet_common.testing.simulation.store import StorePort as StorePort
