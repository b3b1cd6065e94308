"""Client certificates that are no longer good: refused at the next call, and ended in the middle of a stream.

Guarantee: every call of a certificate that is expired, revoked or of an authority that was taken away is refused; calls
that are open then, streams above all, end with the same refusal at the next `sweep`.
Limit: only servers with a listener that asks for client certificates have this in their chain.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.clock import Clock
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.interceptors.open_calls import OpenCalls, interrupt
from purveyor_server.rpc.peers import PeerCertificate, peer_certificate
from purveyor_server.security.trust import ClientTrust


class Certificates:
    """The open calls by the certificate that they came with."""

    def __init__(self, trust: ClientTrust, clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._open = OpenCalls[PeerCertificate]()
        self.refused: Counter[str] = Counter()

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call of a good certificate, or of a client without one, which other rules judge."""
        peer = call.peer = peer_certificate(call.context)
        if peer is None:
            return await proceed(call)
        refusal = self._trust.judge(peer, self._clock.now())
        if refusal is not None:
            raise self._counted(refusal)
        with self._open.holding(peer.fingerprint, peer, call):
            return await proceed(call)

    def peers(self) -> list[PeerCertificate]:
        """The certificates of the open calls."""
        return [peer for peer, _ in self._open]

    def sweep(self) -> None:
        """End the open calls of every certificate that is no longer good."""
        now = self._clock.now()
        for peer, calls in self._open:
            refusal = self._trust.judge(peer, now)
            if refusal is not None:
                interrupt(calls, refusal, self._counted)

    def _counted(self, refusal: PurveyorError) -> PurveyorError:
        self.refused[refusal.metadata["problem"]] += 1
        return refusal
