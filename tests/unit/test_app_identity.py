"""Identity of a broker in a process of its own: the first token, an issuer's tokens, bindings that go, a kill in between."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import PermissionDeniedError
from purveyor_server.app.refusals import Exit
from purveyor_server.app.tokens import create_token_command
from tests.unit.app_process import TIMEOUT, Process, Site

SETTINGS = """
[admin]
http = "127.0.0.1:0"
[identity]
local = "none"
bindings_file = "bindings.toml"
[[identity.issuers]]
name = "main"
issuer = "https://id.example.org"
audience = ["purveyor"]
keys_file = "jwks.json"
tenants_claim = "tenants"
"""
BINDING = '[[bindings]]\nsubject = "main:*"\nroles = ["VIEWER"]\ntenants = ["acme"]\n'
ENDS_SECONDS = 60  # what is promised for a lost role
WHY = "a test"


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def site(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> Site:
    public = {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k1"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [public]}))
    (tmp_path / "bindings.toml").write_text(BINDING)
    return Site(tmp_path, SETTINGS)


def signed(key: ec.EllipticCurvePrivateKey, **changes: Any) -> str:
    now = int(datetime.now(UTC).timestamp())
    claims = {"iss": "https://id.example.org", "aud": "purveyor", "sub": "ann", "exp": now + 600, "tenants": ["acme"]}
    return jwt.encode(claims | changes, key, algorithm="ES256", headers={"kid": "k1"})


def first_token(site: Site) -> str:
    """Made with the broker stopped."""
    code, text = create_token_command("root", ("ADMIN", "OPERATOR"), (), True, None, WHY, site.config)
    assert code == Exit.OK
    return text


async def test_from_the_first_token_on(site: Site, key: ec.EllipticCurvePrivateKey) -> None:
    admin_address = f"unix:{site.data / 'admin.sock'}"
    root = await asyncio.to_thread(first_token, site)
    with Process(site) as process:
        async with AdminClient(admin_address) as stranger:
            with pytest.raises(PermissionDeniedError, match="who calls is not known"):
                await stranger.status()
        async with AdminClient(admin_address, token=root) as admin:
            made = await admin.create_token("ci", ["viewer"], WHY, tenants=["acme"])
        async with purveyor.Client(site.socket, tenant="acme", token=signed(key)) as client:
            assert [service.id for service in (await client.catalog()).services] == ["s1"]
        other = ec.generate_private_key(ec.SECP256R1())
        async with purveyor.Client(site.socket, tenant="acme", token=signed(other)) as client:
            with pytest.raises(PermissionDeniedError, match="signature is wrong"):
                await client.catalog()
        text = await asyncio.to_thread(scrape, process)
        assert 'purveyor_identity_refused_total{problem="signature"} 1.0' in text
        assert 'purveyor_identity_keys{issuer="main"} 1.0' in text
        process.send(signal.SIGKILL)
    with Process(site) as process:
        async with purveyor.Client(site.socket, tenant="acme", token=made.text) as client:
            await client.catalog()
        assert process.send(signal.SIGTERM) == 0
        said = json.dumps(process.events)
    assert not [text for text in (root, made.text) if text.rpartition("_")[2] in said]


def scrape(process: Process) -> str:
    address = process.wait_for("serving metrics")["address"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT) as answer:
        return str(answer.read().decode())


async def test_a_binding_that_goes_ends_a_stream_in_time(site: Site, key: ec.EllipticCurvePrivateKey) -> None:
    with Process(site) as process:
        async with purveyor.Client(site.socket, tenant="acme", token=signed(key)) as client:
            catalogs = client.catalogs()
            await anext(catalogs)
            (site.folder / "bindings.toml").write_text("")

            with pytest.raises(PermissionDeniedError) as ended:
                await asyncio.wait_for(anext(catalogs), ENDS_SECONDS)
        assert process.wait_for("bindings taken")["bindings"] == 0
    assert (ended.value.reason, ended.value.metadata["role"]) == ("PERMISSION_DENIED", "VIEWER")
