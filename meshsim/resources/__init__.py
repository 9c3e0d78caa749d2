"""What the user wrote: resources with Istio's and Kubernetes' own field names, and where each stands in its file."""

from meshsim.resources.load import Documents, load, loads
from meshsim.resources.resource import ObjectMeta, Resource, Source

__all__ = ["Documents", "ObjectMeta", "Resource", "Source", "load", "loads"]
