"""Istio's way out of the mesh, on a laptop.

    mesh = meshsim.load("scenarios/egress-gateway-http")
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any as Json

if TYPE_CHECKING:
    from meshsim.mesh import Mesh, load

__version__ = "0.1.0"
__all__ = ["Mesh", "__version__", "load"]


def __getattr__(name: str) -> Json:
    """`Mesh` and `load`, imported when they are first asked for."""
    if name in ("Mesh", "load"):
        from meshsim import mesh

        return getattr(mesh, name)
    raise AttributeError(name)
