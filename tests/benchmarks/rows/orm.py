"""Provision of the broker against the same verb written with an async ORM and one commit per request.

Both sides get the same load, check the parameters by the same schema, write with WAL and `synchronous=FULL`, and must list
afterwards what they answered. The ORM side is described in `sides/orm.py`: it does less.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ruamel.yaml import YAML

from tests.benchmarks import house
from tests.benchmarks.processes import running, socket_path
from tests.benchmarks.rows.unary import CALLERS, accepted
from tests.benchmarks.runner import Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.yardsticks import ORM, yardstick_python


@contextmanager
def open_orm(run: Run) -> Iterator[Sides]:
    """See the module."""
    python = yardstick_python()
    plan = YAML(typ="safe").load(house.CATALOG)["services"][0]["plans"][0]
    schema = json.dumps(plan["schemas"]["service_instance"]["create"]["parameters"])

    def ours(number: int) -> float:
        with house.broker(run.folder / f"ours-{number}") as server:
            return accepted(server, number, run, "broker").ran.rate

    def theirs(number: int) -> float:
        folder = run.folder / f"theirs-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "schema.json").write_text(schema)
        with socket_path() as path:
            command = ("tests.benchmarks.sides.orm", f"unix:{path}", str(folder))
            with running(command, path, folder / "orm.log", python) as server:
                return accepted(server, number, run, "orm").ran.rate

    yield Sides(ours, theirs)


ROWS = (
    Row(
        name="orm",
        title=f"durable Provision accepted, 1 KiB of parameters, {CALLERS} callers",
        unit="requests/s",
        yardstick=f"a grpc.aio server with {ORM}, aiosqlite and one commit per request",
        target=Target(5, 8),
        open=open_orm,
    ),
)
