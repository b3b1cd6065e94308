"""A whole life of a broker, after which everything that was written and said is searched for every secret.

Guarantee: `clean` is true only if nothing was found, every planted leak was found, every place had something in it, and
the life went as it had to: bindings bound, renewed and rotated, failures failed, instances moved, adopted, forgotten and reaped,
keys rotated over a SIGKILL, the old key gone.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import signal
import sqlite3
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import purveyor
from purveyor.cli.documents import failure_document, text
from purveyor.errors import PurveyorError
from purveyor.values import Event
from purveyor_server.security.keyring import DIGEST, PAGE
from purveyor_server.security.sealing import Sealer
from tests.secrecy.house import SECONDS, TENANT, House
from tests.secrecy.places import Leak, forms, search
from tests.secrecy.upkeep import Upkeep

SECRET_NAMES = ("password", "uri", "jdbc_uri", "jdbcUrl", "jdbc_url")
WANTED = frozenset(
    {"campaigns", "catalogs", "orphans"}
    | {"log", "backup", "events", "operations", "explain", "errors", "audit", "metrics", "status", "answers"}
)
FIRST, SECOND, REFUSED, PIN = 'first "pass"/wörd 1', "second-password-22", "refused-password-333", "binding&pin=4444"
SHOWN = 20
IN_PART = "store.reseal.after=kill:2"


class Options(NamedTuple):
    """With a real PostgreSQL, or with the gossiping provider alone; how many bindings."""

    postgresql: bool = True
    bindings: int = 12
    filler: int = 3_000  # further sealed values, so that a rotation is several commands


class Suite:
    """One run; `say` takes a line at a time."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.leaks: list[Leak] = []
        self.missing: list[str] = []
        self.places: dict[str, bytes] = {}
        self.planted = self.found_planted = self.secrets = self.resealed = 0
        self._say = say
        self._began = time.monotonic()

    @property
    def clean(self) -> bool:
        """Whether everything is as it must be."""
        return not self.leaks and not self.missing and self.planted > 0 and self.planted == self.found_planted

    @property
    def summary(self) -> str:
        """The last line."""
        size = sum(len(content) for content in self.places.values())
        return (
            f"verify-secrets: places={len(self.places)} secrets={self.secrets} bytes={size} found={len(self.leaks)}"
            f" planted={self.planted} found_planted={self.found_planted} resealed={self.resealed}"
            f" seconds={time.monotonic() - self._began:.0f} {'clean' if self.clean else 'NOT CLEAN'}"
        )

    async def run(self) -> None:
        """The life, the search, the controls."""
        with tempfile.TemporaryDirectory(prefix="pv-") as folder:
            house = House(Path(folder), postgresql=self.options.postgresql)
            try:
                await self._live(house)
                self._judge(house)
            finally:
                await asyncio.to_thread(house.clear)

    async def _live(self, house: House) -> None:
        async with house.serving(signal.SIGKILL), house.client() as client:
            self._say("first life: provision, update, bind, fail; killed")
            await self._order(house, client)
            async with house.admin() as admin:
                self._say("the same life: leases, adoption, campaign, orphans, catalogs, inventory")
                upkeep = Upkeep(house, client, admin, self._told, self._expect)
                instances = [instance_id for _, _, instance_id in self._services()]
                await upkeep.lead(instances, lambda name, bound: self._keep_credentials(house, name, bound))
            await self._show_token(house)
            await self._look(house, client, "backup-1.db")
            self._collect(house)
        await asyncio.to_thread(self._fill, house)
        async with house.serving(plan=IN_PART) as process:
            self._say("second life: killed in the middle of a rotation")
            await self._rotate_in_part(house, process)
            self._keep_keys(house)
            self._collect(house)
        async with house.serving() as process, house.client() as client:
            self._say("third life: the rotation goes on to its end, the old key is retired, everything given back")
            await self._rotate(house)
            async with house.admin() as admin:
                await Upkeep(house, client, admin, self._told, self._expect).repair("told")
            await self._give_back(house, client)
            await self._look(house, client, "backup-2.db")
            self._keep_keys(house)
            self.missing += [f"open to others: {path}" for path in house.keep_files("at the end")]
            self._collect(house)
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), SECONDS)
        self._collect(house)

    def _services(self) -> list[tuple[str, str, str]]:
        found = [("gossip", "small", "told")]
        return [("postgresql", "shared-small", "orders"), *found] if self.options.postgresql else found

    async def _order(self, house: House, client: purveyor.Client) -> None:
        for service, plan, instance_id in self._services():
            parameters = {"password": FIRST} if service == "gossip" else {"connection_limit": 5}
            order = client.provision(service, plan, instance_id=instance_id, parameters=parameters, wait=30)
            await self._told(house, _result(order))
        for name, secret in (("first", FIRST), ("second", SECOND), ("refused", REFUSED), ("pin", PIN)):
            house.keep(f"parameter.{name}", secret)
        await self._told(house, _result(client.update("told", parameters={"password": SECOND}, wait=30)))
        refused = client.update("told", parameters={"password": REFUSED, "fail": True}, wait=30)
        self._expect(await self._told(house, _result(refused)) is None, "an update that fails")
        failing = client.bind("told", binding_id="no", parameters={"password": PIN, "fail": True}, wait=30)
        self._expect(await self._told(house, _result(failing)) is None, "a bind that fails")
        await self._told(house, client.bind("told", binding_id="bad", parameters={"password": 12345678}))
        if self.options.postgresql:
            await self._told(house, _result(client.update("orders", parameters={"extensions": ["citext"]}, wait=30)))
            await self._told(house, client.bind("orders", binding_id="bad", parameters={"no": PIN}))
        for number in range(self.options.bindings):
            for service, _, instance_id in self._services():
                sent = {"password": f"{PIN}-{number}"} if service == "gossip" else {}
                bind = client.bind(instance_id, binding_id=f"b{number}", parameters=sent, wait=30)
                bound = await self._told(house, _result(bind))
                self._keep_credentials(house, f"{instance_id}.b{number}", bound)

    async def _show_token(self, house: House) -> None:
        """Make a token; show it, a damaged one, and it once more when it was taken back."""
        async with house.admin() as admin:
            made = await admin.create_token("ci", ["viewer"], "to be shown", tenants=[TENANT])
            house.keep("static token", made.text.rpartition("_")[2][:43])
            house.tell("answers", repr(made))
            for shown in (made.text, made.text[:-1]):
                async with house.client(shown) as client:
                    await self._told(house, client.catalog())
            await self._told(house, admin.revoke_token(made.token.token_id, "shown"))
            async with house.client(made.text) as client:
                self._expect(await self._told(house, client.catalog()) is None, "a token that was taken back")
            house.tell("answers", text([token async for token in admin.tokens()]))

    def _keep_credentials(self, house: House, name: str, bound: Any) -> None:
        if bound is None:
            self.missing.append(f"no credentials of {name}")
            return
        for key in SECRET_NAMES:
            if key in bound.credentials:
                house.keep(f"{name}.{key}", bound.credentials.text(key))

    async def _give_back(self, house: House, client: purveyor.Client) -> None:
        for _, _, instance_id in self._services():
            before = house.secrets.get(f"{instance_id}.b0.password", b"")
            found = await client.credentials(instance_id, "b0")
            self._expect(
                found.text("password").encode() == before, f"the credentials of {instance_id} after a rotation"
            )
            house.tell("answers", repr(found) + str(found))
            await self._told(house, _result(client.unbind(instance_id, "b1", wait=30)))
            await self._told(house, client.credentials(instance_id, "b1"))
            await self._told(house, client.deprovision(instance_id))
        for _, _, instance_id in self._services():
            await self._told(house, _result(client.deprovision(instance_id, cascade=True, wait=30)))
        await self._told(house, _result(client.update("adopted", deletion_protected=False, wait=30)))
        await self._told(house, _result(client.deprovision("adopted", wait=30)))

    async def _told(self, house: House, call: Awaitable[Any]) -> Any:
        """The answer, None for a refusal; both are kept as a person or a script sees them."""
        try:
            answer = await call
        except PurveyorError as failure:
            house.tell("errors", repr(failure) + str(failure) + text(failure_document(failure, 1)))
            return None
        house.tell("answers", repr(answer) + text(answer))
        return answer

    async def _look(self, house: House, client: purveyor.Client, backup: str) -> None:
        """Everything that can be asked for."""
        async for event in client.events("earliest", follow=False):
            house.tell("events", _shown(event))
        async for instance in client.instances(show_deleted=True):
            house.tell("answers", repr(instance) + text(instance))
        async for binding in client.bindings(show_deleted=True):
            house.tell("answers", repr(binding) + text(binding))
        house.tell("answers", repr(await client.catalog()))
        async with house.admin() as admin:
            async for operation in client.operations(steps=True):
                house.tell("operations", repr(operation) + text(operation))
                house.tell("explain", repr(await admin.explain(operation.operation_id)))
            for listed in (admin.drift(), admin.expiring_bindings(within=1e6), admin.campaigns(), admin.quotas()):
                house.tell("answers", "\n".join(repr(one) + text(one) for one in await _all(listed)))
            house.tell("status", repr(await admin.status()) + repr(await admin.keys()))
            await admin.backup(house.folder / backup)
            async for record in admin.audit():
                house.tell("audit", repr(record) + text(record))
        house.tell("metrics", await asyncio.to_thread(_fetched, f"http://{house.http}/metrics"))

    def _fill(self, house: House) -> None:
        """More sealed values, of owners that there never were."""
        sealer = Sealer(_keys(house))
        rows = [
            (f"filler-{n:06}", "x", sealer.seal(f"filler-{n:06}", "x", b"clear")) for n in range(self.options.filler)
        ]
        with closing(sqlite3.connect(house.data / "purveyor.db")) as database, database:
            database.executemany("INSERT INTO secrets (owner, name, sealed) VALUES (?, ?, ?)", rows)

    async def _rotate_in_part(self, house: House, process: asyncio.subprocess.Process) -> None:
        """The broker kills itself after its second command of a rotation: neither its pace nor ours decides."""
        async with house.admin() as admin:
            await admin.status()  # waits for the start; a stream does not
            made = await asyncio.create_subprocess_exec(
                *house.command("keys", "new"), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            self._expect(await asyncio.wait_for(made.wait(), SECONDS) == 0, "a new key")
            await self._told(house, _all(admin.rotate_keys("verify")))
            code = await asyncio.wait_for(process.wait(), SECONDS)
            self._expect(code == -signal.SIGKILL, "a rotation that was killed in its middle")

    async def _rotate(self, house: House) -> None:
        async with house.admin() as admin:
            await admin.status()  # as above
            began = time.monotonic()
            last = [part async for part in admin.rotate_keys("verify")][-1]
            self.resealed, took = last.resealed, time.monotonic() - began
            self._say(f"resealed={last.resealed} of {last.checked} after the kill in {took:.1f} s")
            self._expect(last.done and last.label == "k2" and not last.unreadable, "a whole rotation")
            self._expect(0 < last.resealed < last.checked, "a rotation that goes on where the killed one was")
            counted = {key.label: key.values for key in await admin.keys()}
            self._expect(counted["k1"] == 0 < counted["k2"], "nothing under the old key")
            self._expect(await admin.retire_key("k1", "verify"), "the old key retired")

    def _keep_keys(self, house: House) -> None:
        """The labelled keys, and the store's own, opened with them."""
        keys, store_id = _keys(house), _store_id(house)
        for label, key in keys.items():
            house.keep(f"key.{label}", key)
        with closing(sqlite3.connect(house.data / "purveyor.db")) as database:
            for name in (DIGEST, PAGE):
                sealed = database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]
                house.keep(name, Sealer(keys).open(store_id, name, sealed))

    def _collect(self, house: House) -> None:
        """Keep every place as it is now beside how it was before."""
        for place, content in house.places().items():
            seen = place
            number = 1
            while seen in self.places and self.places[seen] != content:
                number += 1
                seen = f"{place}@{number}"
            self.places[seen] = content

    def _judge(self, house: House) -> None:
        self.secrets = len(house.secrets)
        self._expect(any(place.endswith("purveyor.db-wal") for place in self.places), "a write-ahead log to search")
        self._expect(any(place.endswith("purveyor.db-shm") for place in self.places), "its index to search")
        self.missing += [f"nothing in {place}" for place in sorted(WANTED) if not self.places.get(place)]
        self._expect(b'"level":"debug"' in self.places["log"], "a log at level debug")
        self._expect(b'"note":"it is ***"' in self.places["log"], "gossip in the log, masked")
        self.leaks = search(self.places, house.secrets)
        for leak in self.leaks[:SHOWN]:
            self._say(f"LEAK: {leak.secret} as {leak.form} in {leak.place}")
        for what in self.missing:
            self._say(f"MISSING: {what}")
        self._control(house)

    def _control(self, house: House) -> None:
        """Leaks that are planted must be found: one per place, in every form, and a row of a real database."""
        secrets = list(house.secrets.items())
        for number, (place, content) in enumerate(self.places.items()):
            name, secret = secrets[number % len(secrets)]
            form, planted = list(forms(secret).items())[number % len(forms(secret))]
            middle = len(content) // 2
            self._plant({place: content[:middle] + planted + content[middle:]}, Leak(place, name, form), house)
        for name, secret in secrets:
            for form, planted in forms(secret).items():
                self._plant({"a place": b"..." + planted + b"..."}, Leak("a place", name, form), house)
        name, secret = secrets[0]
        copy = house.folder / "planted.db"
        shutil.copy(house.data / "purveyor.db", copy)
        with closing(sqlite3.connect(copy)) as database, database:
            database.execute("CREATE TABLE planted (value BLOB)")
            database.execute("INSERT INTO planted VALUES (?)", (base64.b64encode(b"ab" + secret),))
        self._plant({"database": copy.read_bytes()}, Leak("database", name, ""), house)

    def _plant(self, place: dict[str, bytes], leak: Leak, house: House) -> None:
        self.planted += 1
        found = search(place, {leak.secret: house.secrets[leak.secret]})
        if any(leak.form in {"", seen.form} for seen in found):
            self.found_planted += 1
        else:
            self._say(f"NOT FOUND: planted {leak.secret} as {leak.form} in {leak.place}")

    def _expect(self, holds: bool, what: str) -> None:  # noqa: FBT001 - as an assertion
        if not holds:
            self.missing.append(what)


async def _result(order: Awaitable[Any]) -> Any:
    return await (await order).result(SECONDS)


async def _all(parts: AsyncIterator[Any]) -> list[Any]:
    return [part async for part in parts]


def _keys(house: House) -> dict[str, bytes]:
    lines = [line.split() for line in (house.data / "keys").read_text().splitlines()[1:]]
    return {label: base64.b64decode(key) for label, key in lines}


def _store_id(house: House) -> str:
    with closing(sqlite3.connect(house.data / "purveyor.db")) as database:
        found: str = database.execute("SELECT value FROM settings WHERE name = 'store_id'").fetchone()[0]
        return found


def _shown(event: Event) -> str:
    return repr(event) + text(event)


def _fetched(address: str) -> str:
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - our own broker
        body: bytes = answer.read()
    return body.decode()
