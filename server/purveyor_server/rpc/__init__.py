"""The gRPC face: decode, one use-case of the lifecycle, encode. The only part of the server that knows grpc."""

from __future__ import annotations

from purveyor_server.kit.listeners import ListenError
from purveyor_server.rpc.server import RpcServer, admin_service, broker_service
from purveyor_server.rpc.settings import RpcSettings
from purveyor_server.security.tls import TlsListen

__all__ = ["ListenError", "RpcServer", "RpcSettings", "TlsListen", "admin_service", "broker_service"]
