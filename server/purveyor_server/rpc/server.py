"""The gRPC server: services, interceptors, listeners, start and drain.

Guarantee: nothing is served before `start()` returned, and after `drain()` returned no handler runs any more, so the store
may be closed. Start is refused when a method has no place in the method table or an address cannot be used.
Limit: one per event loop and process; grpc.aio knows no second loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from purveyor.v1 import admin_service_pb2, admin_service_pb2_grpc, broker_service_pb2, broker_service_pb2_grpc
from purveyor_server.kit.clock import Clock, SystemClock
from purveyor_server.kit.listeners import Address, ListenError, SocketPlace, UnixSocket, parse_address, probe_port
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.rpc.acceptors import Acceptors
from purveyor_server.rpc.admin import AdminService
from purveyor_server.rpc.broker import BrokerService
from purveyor_server.rpc.health import Health
from purveyor_server.rpc.interceptors import deadline, messages
from purveyor_server.rpc.interceptors.around import Around, wrap
from purveyor_server.rpc.interceptors.authentication import Authentication
from purveyor_server.rpc.interceptors.boundary import Boundary, Refused
from purveyor_server.rpc.interceptors.context import RequestContext
from purveyor_server.rpc.interceptors.drain import Drain
from purveyor_server.rpc.interceptors.fairness import Fairness
from purveyor_server.rpc.interceptors.limits import Limits
from purveyor_server.rpc.methods import infra_method, method_table
from purveyor_server.rpc.settings import RpcSettings, transport_options
from purveyor_server.rpc.unknown import UnknownMethods
from purveyor_server.rpc.usecases import UseCases
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.tls import TlsListen

if TYPE_CHECKING:
    from purveyor_server.rpc.interceptors.certificates import Certificates
    from purveyor_server.rpc.tls import TlsWatch

_log = structlog.get_logger(__name__)
BROKER: str = broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"].full_name
HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"  # at run time the class takes no parameters
# What `add_...Servicer_to_server` of the generated code registers: service name and handlers by method.
Register = Callable[[Any], None]


class Served(NamedTuple):
    """A service: what its contract says, and how its handlers get to a server, given the server's settings."""

    descriptor: ServiceDescriptor
    register: Callable[[Any, RpcSettings], None]


def broker_service(use_cases: UseCases) -> Served:
    """BrokerService over `use_cases`."""

    def register(to: Any, settings: RpcSettings) -> None:
        broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(BrokerService(use_cases, settings), to)

    return Served(broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"], register)


def admin_service(administration: Administration) -> Served:
    """AdminService over `administration`."""

    def register(to: Any, _settings: RpcSettings) -> None:
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(administration), to)

    return Served(admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"], register)


class RpcServer:
    """Serves `services`; `ping` raises unless the store answers, `listen` are addresses as configured, with or without TLS.

    Without `identity` everybody is LOCAL: for tests and measurements of the face alone.
    """

    def __init__(
        self,
        services: Sequence[Served],
        ping: Callable[[], Awaitable[None]],
        listen: Sequence[str | TlsListen],
        settings: RpcSettings | None = None,
        clock: Clock | None = None,
        identity: Authenticator | None = None,
        refused: Refused | None = None,
    ) -> None:
        self.settings = settings or RpcSettings()
        self._refused = refused
        self.addresses: tuple[str, ...] = ()
        self._listen = tuple(listen)
        self._clock = clock or SystemClock()
        self.tls: TlsWatch | None = None
        self.certificates: Certificates | None = None
        self.authentication: Authentication | None = None
        self._identity = identity
        self._services = tuple(services)
        self._methods = method_table(self.settings, tuple(service.descriptor for service in services))
        names = [service.descriptor.full_name for service in services]
        self.health = Health(ping, names, self.settings)
        self._reflected = [*names, HEALTH, reflection.SERVICE_NAME]
        self._places: list[SocketPlace] = []
        self._tasks = TaskGroup("rpc")
        self._server: grpc.aio.Server | None = None
        self.drained = False

    async def start(self) -> tuple[str, ...]:
        """Listen and serve; returns the bound addresses. Raises ListenError; nothing is left open then."""
        self.calls = Drain(self.settings.retry_seconds)
        self._acceptors = Acceptors(self.settings.acceptors)
        await self._prepare_tls()
        self._prepare_identity()
        server = grpc.aio.server(options=transport_options(self.settings))
        await self.health.prepare()
        self._add_services(server)
        try:
            self.addresses = tuple(self._bind(server, listen) for listen in self._listen)
        except ListenError:
            self._release()
            await server.stop(None)
            raise
        await server.start()
        self._acceptors.start(server)
        self._server = server
        await self.health.check()
        self._tasks.start("health", self.health.run())
        if self.tls is not None:
            self._tasks.start("tls", self.tls.run())
        if self.authentication is not None:
            self._tasks.start("authentication", self.authentication.run())
        _log.info("serving", addresses=self.addresses)
        return self.addresses

    async def _prepare_tls(self) -> None:
        listens = [listen for listen in self._listen if isinstance(listen, TlsListen)]
        if not listens:
            return
        # Only here: a broker without TLS need not load what reads certificates.
        from purveyor_server.rpc.interceptors.certificates import Certificates  # noqa: PLC0415 - see above
        from purveyor_server.rpc.tls import open_tls  # noqa: PLC0415 - see above

        self.tls = await open_tls(listens, self._clock)
        if self.tls.asks_clients:
            self.certificates = Certificates(self.tls.trust, self._clock)
            self.tls.open_peers, self.tls.on_check = self.certificates.peers, self.certificates.sweep

    def _prepare_identity(self) -> None:
        if self._identity is not None:
            settings = self.settings
            self.authentication = Authentication(
                self._identity,
                self._clock,
                tls=self.tls is not None,
                reflection_open=settings.reflection_open,
                recheck=settings.recheck_seconds,
            )

    def _add_services(self, server: grpc.aio.Server) -> None:
        arounds = self._arounds()
        services: list[Register] = [partial(self._register, service) for service in self._services]
        services.append(lambda to: health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, to))
        if self.settings.reflection:
            servicer = reflection.aio.ReflectionServicer(self._reflected)
            services.append(lambda to: reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, to))
        for register in services:
            recorder = _Recorder()
            register(recorder)
            wrapped = {name: self._wrapped(recorder.service, name, h, arounds) for name, h in recorder.handlers.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(recorder.service, wrapped),))
            if recorder.service == BROKER:
                self._acceptors.add(server, recorder.service, wrapped)
        unknown = UnknownMethods(arounds, self.settings.write_seconds, self.settings.call_seconds)
        server.add_generic_rpc_handlers((unknown,))

    def _register(self, service: Served, to: Any) -> None:
        service.register(to, self.settings)

    def _arounds(self) -> tuple[Around, ...]:
        """The interceptors, outermost first."""
        return (
            RequestContext(self.calls, self.settings).around,
            Boundary(self.settings.abort_seconds, self._refused).around,
            self.calls.around,
            *((self.certificates.around,) if self.certificates is not None else ()),
            *((self.authentication.around,) if self.authentication is not None else ()),
            Limits(self.settings, self._clock).around,
            deadline.around,
            Fairness(self.settings, self._clock).around,
            messages.around,
        )

    def _wrapped(
        self, service: str, name: str, handler: grpc.RpcMethodHandler[Any, Any], arounds: Sequence[Around]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        full_name = f"/{service}/{name}"
        method = self._methods.get(full_name)
        if method is None:
            method = infra_method(full_name, self.settings, streaming=bool(handler.response_streaming))
        decode = handler.request_deserializer
        if decode is not None and not (handler.request_streaming and method.infra):
            decode = messages.bounded(decode, self.settings.request_bytes)
        return wrap(handler, method, arounds, self.settings.write_seconds, decode)

    def _bind(self, server: grpc.aio.Server, listen: str | TlsListen) -> str:
        credentials: grpc.ServerCredentials | None = None
        if isinstance(listen, TlsListen):
            address = parse_address(listen.address, tls=True)
            credentials = self._credentials(listen)
        else:
            address = parse_address(listen)
        if isinstance(address, UnixSocket):
            place = SocketPlace(address)
            place.claim()
            self._places.append(place)
            _add(server, address, credentials)
            return address.target
        probe_port(address)
        return address.bound(_add(server, address, credentials))

    def _credentials(self, listen: TlsListen) -> grpc.ServerCredentials:
        assert self.tls is not None
        return next(known.credentials() for known in self.tls.listeners if known.listen is listen)

    async def drain(self, grace: float) -> None:
        """Stop within about `grace` seconds: NOT_SERVING first, new calls refused, streams ended at once, then the rest.

        Short calls get `grace` seconds to finish; what still runs then ends with DRAINING. Idempotent.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await self.health.drain()
        self.calls.begin()
        _log.info("draining", live=len(self.calls))
        finished = await self.calls.idle(grace, infra=False)
        self.calls.finish()
        gone = await self.calls.idle(self.settings.stop_seconds, infra=True)
        await server.stop(0 if gone else self.settings.stop_seconds)
        # The core's stop returns before the handlers' own clean-up has run.
        await self.calls.idle(self.settings.stop_seconds, infra=True)
        await self._tasks.close()
        await self._acceptors.close()
        self._release()
        self.drained = True
        _log.info("drained", finished=finished, left=len(self.calls))

    def _release(self) -> None:
        for place in self._places:
            place.release()
        self._places.clear()


class _Recorder:
    """Takes what the generated registration code gives to a server."""

    def __init__(self) -> None:
        self.service = ""
        self.handlers: Handlers = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers again, in a form that cannot be taken apart."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """The handlers of one service."""
        self.service = service_name
        self.handlers = dict(method_handlers)


def _add(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is not None:
            return server.add_secure_port(address.target, credentials)
        return server.add_insecure_port(address.target)
    except RuntimeError:
        raise ListenError(address.target, "the address could not be bound") from None
