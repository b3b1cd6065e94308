"""Static tokens and roles, from messages and to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purveyor import decode
from purveyor.admin_values import Token
from purveyor.errors import InvalidRequestError, Violation
from purveyor.v1.options_pb2 import Role

if TYPE_CHECKING:
    from purveyor.v1 import admin_service_pb2 as messages


def role(name: str) -> Role.ValueType:
    """A role by its name. Raises InvalidRequestError."""
    known = {found.removeprefix("ROLE_"): number for found, number in Role.items() if number}
    short = name.upper().replace("-", "_")
    if short not in known:
        text = f"{name!r} is none of {', '.join(known)}"
        raise InvalidRequestError(f"roles: {text}", reason="INVALID_REQUEST", violations=(Violation("roles", text),))
    return known[short]


def token(found: messages.Token) -> Token:
    """A static token."""
    return Token(
        token_id=found.token_id,
        name=found.name,
        roles=tuple(decode.enum_name(Role, number, "ROLE_") for number in found.roles),
        tenants=tuple(found.tenants),
        every_tenant=found.every_tenant,
        create_time=decode.time_of(found.create_time),
        creator=found.creator,
        expire_time=decode.time_of(found.expire_time) if found.HasField("expire_time") else None,
        use_time=decode.time_of(found.use_time) if found.HasField("use_time") else None,
        revoke_time=decode.time_of(found.revoke_time) if found.HasField("revoke_time") else None,
    )
