"""A real broker whose catalog file changes under it."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import purveyor
from purveyor.sync import SyncAdminClient
from tests.unit.app_process import CATALOG, Process, Site

MORE = CATALOG + "      - {id: p2, name: large, description: Large., provider: main, settings: {kind: shared}}\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def admin_of(site: Site) -> SyncAdminClient:
    return SyncAdminClient(f"unix:{site.data / 'admin.sock'}")


def plans(catalog: Any) -> list[str]:
    return [plan.id for service in catalog.services for plan in service.plans]


@pytest.mark.crash
def test_a_changed_file_is_served_without_a_restart_and_a_dangerous_one_is_not(site: Site) -> None:
    with Process(site) as broker:
        with purveyor.SyncClient(site.socket) as client, closing(client.catalogs()) as told, admin_of(site) as admin:
            assert plans(next(told)) == ["p1"]
            handle = client.provision("s1", "p1", instance_id="one")
            assert handle.id  # its backend does not answer: it stays
            site.catalog.write_text(MORE)
            assert plans(next(told)) == ["p1", "p2"]

            site.catalog.write_text(MORE.replace("id: p1", "id: p3"))
            os.kill(broker.pid, signal.SIGHUP)
            refused = broker.wait_for("the catalog file is not taken, the catalog before goes on")
            assert any("PLAN_REMOVED" in why and "default/one" in why for why in refused["why"])
            status = admin.status()
            assert (status.catalog_version, status.catalog_refusal is not None) == (2, True)
            assert plans(client.catalog()) == ["p1", "p2"]
        assert broker.send(signal.SIGTERM) == 0

    with Process(site) as broker, purveyor.SyncClient(site.socket) as client, admin_of(site) as admin:
        assert plans(client.catalog()) == ["p1", "p2"]  # the stored one
        assert admin.status().catalog_refusal is not None
        admin.apply_catalog(site.catalog.read_text(), "meant", policies=["s1/p1=keep"])
        assert admin.status().catalog_refusal is None
        assert plans(client.catalog()) == ["p3", "p2"]
        assert broker.send(signal.SIGTERM) == 0

    with Process(site) as broker, purveyor.SyncClient(site.socket) as client:
        assert (plans(client.catalog()), client.catalog().version) == (["p3", "p2"], 3)


@pytest.mark.crash
def test_new_providers_are_asked_and_new_configurations_too(site: Site) -> None:
    with Process(site) as broker, purveyor.SyncClient(site.socket) as client, closing(client.catalogs()) as told:
        next(told)
        broker.wait_for("provider does not reach its backend")
        seen = len(broker.events)
        other = CATALOG.replace("  main:\n", "  other:\n").replace("provider: main", "provider: other")
        site.catalog.write_text(other)
        next(told)
        with admin_of(site) as admin:
            assert [provider.name for provider in admin.status().providers] == ["other"]
        line = broker.wait_for_next("provider does not reach its backend", seen)
        assert line["provider"] == "other"
