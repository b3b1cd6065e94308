"""What the whole chain costs: Provision and GetInstance over mTLS with a JWT, by processor time of the server alone.

h2load shows no client certificates, and a client in Python is slower than the server; so it is not rates that are compared but the
time that the server spends per request, which one core turns into a rate. The yardstick is a bare grpc.aio server on a plain unix
socket with answers of the same sizes, asked by the same client.

Guarantee: every answer is OK, and the caller of the instances that were made is the one of the token.
Limit: connections are made before the clock starts: what a handshake costs is not in here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from jwt.algorithms import ECAlgorithm

from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.security.devcerts import Wish, make_dev_certs
from tests.benchmarks import house
from tests.benchmarks.processes import Server, SideError, free_port
from tests.benchmarks.rows.unary import bare
from tests.benchmarks.runner import Beside, Row, Run, Sides
from tests.benchmarks.sides.bare import SERVICE as BARE
from tests.benchmarks.sides.bare import sized
from tests.benchmarks.stats import Target

CHANNELS, AT_ONCE, WARM_UP = 4, 32, 200
LEAST = 500  # requests of a round: the run's quarter
ISSUER, AUDIENCE, SUBJECT = "https://id.example.org", "purveyor", "bench"
# A rate of 0.75 and of 0.45 of the bare one is this much more time for each.
GET, PROVISION = Target(1 / 0.75, 1 / 0.90, better="lower"), Target(1 / 0.45, 1 / 0.60, better="lower")
IDENTITY = """\
reads_per_second = 0
writes_per_second = 0
[[listen.tls]]
address = "127.0.0.1:{port}"
certificate = "{certs}/server.pem"
key = "{certs}/server.key"
client_ca = "{certs}/ca.pem"
[identity]
local = "none"
[[identity.issuers]]
name = "main"
issuer = "{issuer}"
audience = ["{audience}"]
keys_file = "{keys}"
tenants_claim = "tenants"
roles_claim = "roles"
"""


class Shown(NamedTuple):
    """What a caller shows, and where."""

    target: str
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]


def secure(folder: Path) -> tuple[str, Shown]:
    """Certificates, an issuer's key and a token in `folder`; the settings for a broker, and what its caller shows."""
    certs, keys, port = folder / "certs", folder / "jwks.json", free_port()
    make_dev_certs(certs, Wish(clients=("bench",)), datetime.now(UTC))
    key = ec.generate_private_key(ec.SECP256R1())
    keys.write_text(
        json.dumps({"keys": [ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1", "use": "sig"}]})
    )
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + timedelta(hours=2),
        "tenants": list(house.TENANTS), "roles": ["VIEWER", "CONSUMER"],
    }  # fmt: skip
    token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k1"})
    pair = (certs / "client-bench.key", certs / "client-bench.pem")
    credentials = grpc.ssl_channel_credentials((certs / "ca.pem").read_bytes(), *(file.read_bytes() for file in pair))
    settings = IDENTITY.format(port=port, certs=certs, issuer=ISSUER, audience=AUDIENCE, keys=keys)
    return settings, Shown(f"localhost:{port}", credentials, (("authorization", f"Bearer {token}"),))


async def asked(
    server: Server, shown: Shown, method: str, requests: list[Message], decode: Any
) -> tuple[float, list[Any]]:
    """Send every request, AT_ONCE at a time; the server's processor time per request in milliseconds, and the answers."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    answers: list[Any] = []
    left = iter(requests)
    channels = [
        grpc.aio.insecure_channel(shown.target, options)
        if shown.credentials is None
        else grpc.aio.secure_channel(shown.target, shown.credentials, options)
        for _ in range(CHANNELS)
    ]

    async def work(number: int) -> None:
        call = channels[number % CHANNELS].unary_unary(method, type(requests[0]).SerializeToString, decode)
        for request in left:  # one after the other: AT_ONCE of these are at work
            answer = await call(request, timeout=house.CALL_SECONDS, metadata=shown.metadata)
            answers.append(answer)

    try:
        warm = list(islice(left, WARM_UP))
        call = channels[0].unary_unary(method, type(requests[0]).SerializeToString, decode)
        for channel in channels:
            await asyncio.wait_for(channel.channel_ready(), house.CALL_SECONDS)
        answers += [await call(request, timeout=house.CALL_SECONDS, metadata=shown.metadata) for request in warm]
        before = server.cpu_seconds
        await asyncio.gather(*(work(number) for number in range(AT_ONCE)))
        return (server.cpu_seconds - before) / (len(requests) - len(warm)) * 1000, answers
    finally:
        for channel in channels:
            await channel.close()


def ask(server: Server, shown: Shown, method: str, requests: list[Message], answer: Any) -> tuple[float, list[Any]]:
    """As `asked`, in a loop of its own."""
    return asyncio.run(asked(server, shown, method, requests, answer))


def yardstick(run: Run, request: Message, answer_bytes: int, count: int) -> float:
    """Processor time of a bare answer of that size."""
    body = sized(request.ByteSize())
    with bare(run.folder, answer_bytes) as server:
        shown = Shown(server.address, None, ())
        return ask(server, shown, f"/{BARE}/Unary", [body] * count, None)[0]


@contextmanager
def open_secured(run: Run) -> Iterator[Sides]:
    """See the module."""
    settings, shown = secure(run.folder)
    count = max(LEAST, run.requests // 4) + WARM_UP
    provisions: list[Message] = [house.provision_request(house.TENANTS[n % len(house.TENANTS)]) for n in range(count)]
    sizes: dict[str, int] = {}

    def ours(number: int) -> tuple[float, float]:
        with house.broker(run.folder / f"round-{number}", settings=house.SETTINGS + settings) as server:
            cost, made = ask(server, shown, f"{house.SERVICE}/Provision", provisions, pb.ProvisionResponse.FromString)
            if {answer.operation.tenant for answer in made} != set(house.TENANTS):
                raise SideError("not every tenant was served")
            first = made[0].instance
            gets: list[Message] = [pb.GetInstanceRequest(tenant=first.tenant, instance_id=first.instance_id)] * count
            read, found = ask(server, shown, f"{house.SERVICE}/GetInstance", gets, pb.GetInstanceResponse.FromString)
            if f"main:{SUBJECT}" not in server.log.read_text(encoding="utf-8"):
                raise SideError("the caller was not the one of the token")
        sizes.update(provision=made[0].ByteSize(), get=found[0].ByteSize())
        return read, cost

    def theirs(_number: int) -> tuple[float, float]:
        if not sizes:
            ours(-1)  # the sizes of the answers are the broker's to say
        get = pb.GetInstanceRequest(tenant=house.TENANTS[0], instance_id="0" * 36)
        return yardstick(run, get, sizes["get"], count), yardstick(run, provisions[0], sizes["provision"], count)

    yield Sides(ours, theirs)


ROWS = (
    Row(
        name="get_secured",
        title="GetInstance over mTLS with a JWT, processor time of the server",
        unit="ms/request",
        yardstick="a bare grpc.aio answer of the same size on a plain socket",
        target=GET,
        open=open_secured,
        beside=(Beside("provision_secured", "ms/request", PROVISION),),
    ),
)
