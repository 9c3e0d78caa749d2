"""What the user wrote: resources with Istio's and Kubernetes' own field names, and where each stands in its file."""

from meshsim.resources.kinds import KINDS
from meshsim.resources.load import Document, Documents, load, loads
from meshsim.resources.resource import ObjectMeta, Resource, Source

__all__ = ["KINDS", "Document", "Documents", "ObjectMeta", "Resource", "Source", "load", "loads"]
