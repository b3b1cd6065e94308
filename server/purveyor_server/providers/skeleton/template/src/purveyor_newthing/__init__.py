"""The provider `newthing` of the service broker Purveyor."""

from purveyor_newthing.provider import NewthingProvider

__all__ = ["NewthingProvider"]
