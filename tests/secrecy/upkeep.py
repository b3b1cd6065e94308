"""The life after the first day: leases, an adoption, a campaign, what is forgotten and reaped, catalogs, inventories.

Guarantee: each step that must succeed is held to it (`expect`), and everything that is answered, failures too, is kept where it
is searched. Limit: a thing of the gossiping provider lives as long as its broker's process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import purveyor
from purveyor.admin import AdminClient
from purveyor.cli.documents import text
from tests.secrecy.house import TENANT, House
from tests.secrecy.keeper import LEGACY

REASON = "to be searched"
ADOPTED, LOST, WRITTEN = "adopted-password-5555", "lost-password-666666", "catalog-password-7777777"
DEDICATED = "dedicated-small"

Told = Callable[[House, Awaitable[Any]], Awaitable[Any]]


class Upkeep:
    """What callers and operators do to what is there; `told` gives the answer or None, `expect` notes what did not hold."""

    def __init__(
        self, house: House, client: purveyor.Client, admin: AdminClient, told: Told, expect: Callable[[bool, str], None]
    ) -> None:
        self._house = house
        self._client = client
        self._admin = admin
        self._told = told
        self._expect = expect
        for name, secret in (("adopted", ADOPTED), ("lost", LOST), ("written", WRITTEN)):
            house.keep(f"parameter.{name}", secret)

    async def lead(self, instances: list[str], keep: Callable[[str, Any], None]) -> None:
        """All of it; `keep` remembers the credentials of a binding."""
        for instance_id in instances:
            await self._lease(instance_id, keep)
        await self._adopt()
        await self._campaign()
        await self._lose(keep)
        await self._inventory()
        await self._reap()
        await self._catalogs()
        if self._house.postgresql:
            await self._move(keep)
            await self._rotate_root()

    async def must(self, what: str, call: Awaitable[Any]) -> Any:
        """The answer of a call that must not be refused."""
        answer = await self._told(self._house, call)
        self._expect(answer is not None, what)
        return answer

    async def repair(self, instance_id: str) -> None:
        """Look at a thing that went with its process, and make it again, its bindings too."""
        found = await self.must("a look", self._admin.look(TENANT, instance_id, REASON))
        self._expect(found is not None and found.drift == "MISSING", "a thing that is missing")
        await self.must("a pause", self._admin.pause(TENANT, instance_id, REASON))
        await self.must("its end", self._admin.resume(TENANT, instance_id, REASON))
        done = await self.must("a repair", self._admin.repair(TENANT, instance_id, REASON, wait=30))
        self._expect(done is not None and done.state == "SUCCEEDED", "a repair that succeeds")
        await self._end("REISSUE")

    async def _end(self, verb: str) -> None:
        """Every operation of a kind, at its end."""
        found = [status async for status in self._client.operations(f'verb = "{verb}"')]
        self._expect(bool(found), f"a {verb}")
        for status in found:
            await self.must(f"a {verb} that succeeds", self._result(self._client.operation(status.operation_id)))

    async def _result(self, order: Awaitable[Any]) -> Any:
        return await (await order).result(30)

    async def _lease(self, instance_id: str, keep: Callable[[str, Any], None]) -> None:
        sent = {"password": f"{LOST}-leased"} if instance_id == "told" else {}
        call = self._client.bind(instance_id, binding_id="leased", parameters=sent, ttl=3600, wait=30)
        keep(f"{instance_id}.leased", await self._told(self._house, self._result(call)))
        renewal = self._client.renew(instance_id, "leased", ttl=7200, wait=30)
        await self.must("a renewal", self._result(renewal))
        rotation = self._client.rotate(instance_id, "leased", successor_id="leased-2", overlap=60, wait=30)
        keep(f"{instance_id}.leased-2", await self._told(self._house, self._result(rotation)))
        await self._told(self._house, self._client.rotate(instance_id, "nobody", successor_id="x"))

    async def _adopt(self) -> None:
        done: Any = None
        for source in ({"thing": "nothing", "password": WRITTEN}, {"thing": LEGACY}):
            call = self._admin.adopt(
                TENANT, "adopted", "gossip", "gossip-small", source, REASON, parameters={"password": ADOPTED}, wait=30
            )
            done = await self._told(self._house, call)
        self._expect(done is not None and done.state == "SUCCEEDED", "an adoption")

    async def _campaign(self) -> None:
        move = ("gossip", "gossip-small", REASON)
        async for part in self._admin.plan_campaign(*move[:2], to_plan_id="gossip-large"):
            self._house.tell("campaigns", repr(part) + text(part))
        begun = await self.must("a campaign", self._admin.create_campaign(*move, to_plan_id="gossip-large"))
        async for found in self._admin.watch_campaign(begun.campaign_id):
            self._house.tell("campaigns", repr(found) + text(found))
        self._expect(found.state == "SUCCEEDED" and found.succeeded > 1, "a campaign that succeeds")
        await self._end("REISSUE")

    async def _lose(self, keep: Callable[[str, Any], None]) -> None:
        made = self._client.provision("gossip", "small", instance_id="lost", parameters={"password": LOST}, wait=30)
        await self.must("one to lose", self._result(made))
        bind = self._client.bind("lost", binding_id="b", parameters={"password": LOST}, wait=30)
        keep("lost.b", await self._told(self._house, self._result(bind)))

    async def _reap(self) -> None:
        await self.must("a purge", self._admin.purge(TENANT, "lost", REASON, even_if_in_use=True))
        await self._kept("orphans", self._admin.sweep("gossip", REASON))
        found = await self._kept("orphans", self._admin.orphans("gossip"))
        self._expect(len(found) > 1, "orphans")
        for orphan in found:
            named = ("gossip", orphan.kind, orphan.name, REASON)
            await self.must("a quarantine", self._admin.quarantine_orphan(*named))
            await self.must("a reap", self._admin.reap_orphan(*named))
        await self._kept("orphans", self._admin.rebuild_report())

    async def _catalogs(self) -> None:
        """One that is taken, and those that would put a secret into it in clear."""
        good = self._house.catalog + "    # seen\n"
        clear = self._house.catalog.replace("{kind: gossip}", f"{{kind: gossip, config: {{password: {WRITTEN}}}}}")
        default = good.replace(
            "name: small\n", f"name: small\n        defaults: {{instance: {{password: {WRITTEN}}}}}\n"
        )
        for tree in (clear, default):
            check = await self.must("a judgement", self._admin.validate_catalog(tree))
            self._expect(check is not None and bool(check.problems), "a secret in a catalog, refused")
            await self._told(self._house, self._admin.diff_catalog(tree))
            refused = await self._told(self._house, self._admin.apply_catalog(tree, REASON))
            self._expect(refused is None, "a catalog with a secret, refused")
        await self.must("a diff", self._admin.diff_catalog(good))
        await self.must("a catalog", self._admin.apply_catalog(good, REASON))
        for version in await self._kept("catalogs", self._admin.catalog_history()):
            self._house.tell("catalogs", repr(await self._admin.catalog_text(version.version)))

    async def _inventory(self) -> None:
        names = [instance.instance_id async for instance in self._client.instances()]
        told = await self.must("an inventory", self._client.sync_inventory([n for n in names if n != "lost"]))
        self._expect(told is not None and told.orphaned == ("lost",), "a platform-orphan")
        await self._kept("orphans", self._admin.platform_orphans())
        await self.must("a claim", self._client.claim("lost"))

    async def _move(self, keep: Callable[[str, Any], None]) -> None:
        """To a server of its own: another host and port, so credentials are issued anew."""
        await self.must("a move", self._result(self._client.update("orders", plan=DEDICATED, wait=60)))
        await self._end("REISSUE")
        found = await self._client.credentials("orders", "b0")
        for key in ("password", "uri", "jdbc_uri"):
            if key in found:
                self._house.keep(f"orders.b0.moved.{key}", found.text(key))

    async def _rotate_root(self) -> None:
        self._house.keep_files("before")
        before = dict(self._house.secrets)
        done = await self.must("new passwords of the broker", self._admin.rotate_root("main", REASON))
        self._expect(done is not None and len(done.accounts) > 1, "accounts with new passwords")
        self._house.keep_files("after")
        same = [name for name in before if before[name] == self._house.secrets.get(name.replace(" before", " after"))]
        self._expect(not [name for name in same if name.endswith(" before")], "passwords that are new")

    async def _kept(self, place: str, answers: AsyncIterator[Any]) -> list[Any]:
        """All of them, kept as a place of its own."""
        found = [answer async for answer in answers]
        self._house.tell(place, "\n".join(repr(answer) + text(answer) for answer in found))
        return found
