"""What metrics tell of the TLS listeners of all servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from purveyor_server.monitor.tls import ListenerFacts, TlsFacts
from purveyor_server.rpc import RpcServer


def tls_facts(servers: Iterable[RpcServer]) -> TlsFacts:
    """As of now."""
    listeners: list[ListenerFacts] = []
    refused: Counter[str] = Counter()
    for server in servers:
        if server.certificates is not None:
            refused.update(server.certificates.refused)
        for found in server.tls.listeners if server.tls is not None else ():
            made = found.material
            listeners.append(
                ListenerFacts(found.listen.address, made.not_after, made.next_update, bool(found.broken), found.reloads)
            )
    return TlsFacts(listeners, sorted(refused.items()))
