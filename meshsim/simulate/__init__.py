"""A call through the mesh without a socket: hop by hop, each decided by the same functions as in the live proxies."""

from meshsim.simulate.call import Call
from meshsim.simulate.trace import Hop, Leg, Trace
from meshsim.simulate.walk import Simulation
from meshsim.simulate.world import Secrets, World

__all__ = ["Call", "Hop", "Leg", "Secrets", "Simulation", "Trace", "World"]
