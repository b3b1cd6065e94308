"""The provider contract suite: what every provider must do, run against its real backend.

    from purveyor_server.providers.testing import Case, ProviderContract

    class MyCase(Case): ...

    class TestMine(ProviderContract):
        @pytest.fixture
        def case(self, tmp_path): return MyCase(tmp_path)

Guarantee: the same topics for everybody (see `topics`); each was shown a provider that breaks it.
Limit: pytest is not a dependency of the server: `ProviderContract` needs it, the topics do not. See docs/providers.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from purveyor_server.providers.testing.case import Case, ContractBroken, Environment, Held, NotOffered
from purveyor_server.providers.testing.topics import TOPICS

if TYPE_CHECKING:
    from purveyor_server.providers.testing.suite import ProviderContract

__all__ = ["TOPICS", "Case", "ContractBroken", "Environment", "Held", "NotOffered", "ProviderContract"]


def __getattr__(name: str) -> Any:
    """`ProviderContract`, loaded when it is asked for. Raises ImportError that says what to install."""
    if name != "ProviderContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from purveyor_server.providers.testing.suite import ProviderContract  # noqa: PLC0415 - pytest is optional
    except ModuleNotFoundError as error:
        raise ImportError("the provider contract suite needs pytest: pip install pytest") from error
    return ProviderContract
