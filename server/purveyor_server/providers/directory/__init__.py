"""Folders with a quota and token files, as a service. See docs/directory.md."""

from purveyor_server.providers.directory.provider import DirectoryProvider

__all__ = ["DirectoryProvider"]
