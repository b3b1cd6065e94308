"""Who calls: a bearer token, else a client certificate, else, where the configuration says so, somebody on this machine.

Guarantee: no call but those of health (and of reflection where it is open) reaches a handler without a principal; a wrong
credential is refused even where none would be needed. A call that lasts ends with CREDENTIAL_EXPIRED when its credential
does, with the refusal of its credential when that is no longer good, and with PERMISSION_DENIED when it lost the roles it
needs, at the latest `recheck` seconds later.
Limit: a request is decoded before its caller is known. Certificates' dates and revocation are the business of `certificates`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import Means, Principal
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.signals import Signals
from purveyor_server.lifecycle.door import ROLES, Action, denied
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.interceptors.open_calls import OpenCalls, interrupt
from purveyor_server.rpc.methods import Kind
from purveyor_server.security.identity.authenticator import Authenticator, Proof
from purveyor_server.security.identity.text import refused

AUTHORIZATION = "authorization"
ANONYMOUS = Principal(subject="anonymous")
LOOK_SECONDS = 1.0  # between two looks at what has expired
HEALTH_PREFIX = "/grpc.health."
# What says that the store does not answer: no reason to end a stream, and no token can be revoked meanwhile.
_NO_ANSWER = frozenset({Reason.STORE_UNAVAILABLE, Reason.OUTCOME_UNKNOWN})
_ACTIONS = frozenset(str(action) for action in Action)
_log = structlog.get_logger(__name__)


class Authentication:
    """Gives every call its principal, and watches over those that last. `tls`: whether any listener of the server has it."""

    def __init__(
        self,
        identity: Authenticator,
        clock: Clock,
        *,
        tls: bool = False,
        reflection_open: bool = True,
        recheck: float = 20.0,
    ) -> None:
        self._identity = identity
        self._clock = clock
        self._tls = tls
        self._reflection_open = reflection_open
        self._recheck = recheck
        self._open = OpenCalls[Proof]()
        self._changed = asyncio.Event()
        identity.subscribe(self._changed.set)
        self.signals = Signals()

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call of somebody."""
        method = call.method
        if method.infra and (self._reflection_open or method.name.startswith(HEALTH_PREFIX)):
            call.principal = ANONYMOUS
            return await proceed(call)
        proof = await self._prove(call)
        call.principal = proof.principal
        if proof.again is None or not (method.kind is Kind.STREAM or method.kind is Kind.WAIT or method.wait_cap):
            return await proceed(call)
        with self._open.holding(id(proof), proof, call):
            return await proceed(call)

    async def _prove(self, call: Call) -> Proof:
        header: Any = None
        for key, value in call.context.invocation_metadata() or ():
            if key == AUTHORIZATION:
                if header is not None:
                    raise self._identity.counted(refused("repeated", "there is more than one authorization header"))
                header = value
        if header is not None:
            text = header if isinstance(header, str) else header.decode("latin-1")
            return await self._identity.bearer(text)
        if call.peer is not None:
            return self._identity.certificate(call.peer)
        if self._tls and call.context.auth_context().get("transport_security_type") == [b"ssl"]:
            raise self._identity.missing()
        return self._identity.local()

    async def run(self) -> None:
        """Look after the open calls for ever."""
        due = self._clock.monotonic() + self._recheck
        while True:
            await self._pause()
            try:
                self.expire()
                if self._changed.is_set() or self._clock.monotonic() >= due:
                    self._changed.clear()
                    await self.recheck()
                    due = self._clock.monotonic() + self._recheck
            except Exception:  # noqa: BLE001 - a defect here must not be the end of every later look
                _log.exception("open calls could not be looked after")
            self.signals.emit("looked")

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            pass

    def expire(self) -> None:
        """End the calls of every credential that has expired."""
        now = self._clock.now()
        for proof, calls in self._open:
            principal = proof.principal
            end = principal.expires_at
            if end is not None and now >= end and principal.means is not Means.CERTIFICATE:
                expired = refused("expired", "the credential has expired", Reason.CREDENTIAL_EXPIRED)
                self._interrupt(calls, expired)

    async def recheck(self) -> None:
        """Ask every proof again, and end the calls of those that no longer hold."""
        for proof, calls in self._open:
            try:
                principal = await self._identity.again(proof)
            except PurveyorError as refusal:
                if refusal.reason not in _NO_ANSWER:
                    self._interrupt(calls, refusal)
                continue
            for call in list(calls):
                call.principal = principal
                refusal_of = lost_role(call, principal)
                if refusal_of is not None:
                    self._interrupt({call}, refusal_of)
            await asyncio.sleep(0)  # thousands of signatures in one go would hold up everybody else

    def _interrupt(self, calls: set[Call], refusal: PurveyorError) -> None:
        interrupt(calls, refusal, self._identity.counted)


def lost_role(call: Call, principal: Principal) -> PurveyorError | None:
    """The refusal of an open call whose caller no longer holds a role that its method needs; None when it does."""
    name = call.method.name.rpartition("/")[2]
    if name not in _ACTIONS:
        return None
    action = Action(name)
    needed, tenant = ROLES[action], getattr(call.request, "tenant", "")
    if tenant:
        held = not principal.roles_in(tenant).isdisjoint(needed)
    elif call.method.name.startswith("/purveyor.v1.AdminService/"):
        held = any(principal.holds(role) for role in needed)
    else:
        held = principal.tenants_with(needed) != frozenset()
    return None if held else denied(action, *needed, tenant=tenant)
