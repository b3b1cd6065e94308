"""What can be wrong with a request before anything is looked up: ids, labels, sizes, times."""

from __future__ import annotations

import re
from datetime import timedelta

from purveyor_server.domain.errors import PurveyorError, Reason, invalid
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Binding, Identity, Instance, Operation
from purveyor_server.domain.names import check_id, check_request_id
from purveyor_server.domain.parameters import check_json
from purveyor_server.lifecycle.contract import ZERO, Bind, Provision, Update, Write
from purveyor_server.lifecycle.ports import LifecycleSettings

MAX_LABELS = 64
MAX_LABEL_VALUE = 255  # characters
MAX_PLATFORM = 128  # characters
_LABEL_KEY = re.compile(r"[a-zA-Z0-9._/-]{1,63}")


def check_write(request: Write) -> None:
    """What holds for every mutating request; an empty instance_id is judged by its verb. Raises INVALID_REQUEST."""
    if request.request_id:
        check_request_id(request.request_id)
    if request.wait < ZERO:
        raise invalid("wait", "must not be negative")
    _check_identity(request.originating_identity)


def check_provision(request: Provision) -> None:
    """Raises INVALID_REQUEST or MESSAGE_TOO_LARGE."""
    check_write(request)
    if request.instance_id:
        check_id(request.instance_id, "instance_id")
    check_id(request.service_id, "service_id")
    check_id(request.plan_id, "plan_id")
    check_json(request.parameters, "parameters")
    check_json(request.context, "context")
    check_labels(request.labels)


def check_update(request: Update) -> None:
    """Raises INVALID_REQUEST or MESSAGE_TOO_LARGE."""
    check_write(request)
    check_id(request.instance_id, "instance_id")
    if request.plan_id is not None:
        check_id(request.plan_id, "plan_id")
    check_json(request.parameters or {}, "parameters")
    check_json(request.context or {}, "context")
    check_labels(request.labels or {})


def check_bind(request: Bind, settings: LifecycleSettings) -> None:
    """Raises INVALID_REQUEST or MESSAGE_TOO_LARGE."""
    check_write(request)
    check_id(request.instance_id, "instance_id")
    if request.binding_id:
        check_id(request.binding_id, "binding_id")
    check_json(request.parameters, "parameters")
    check_json(request.context, "context")
    check_json(request.bind_resource, "bind_resource")
    check_labels(request.labels)
    if request.ttl is not None and not timedelta(0) < request.ttl <= settings.max_ttl:
        raise invalid("ttl", f"must be more than 0 and at most {settings.max_ttl.days} days")


def check_labels(labels: dict[str, str]) -> None:
    """Raises INVALID_REQUEST."""
    if len(labels) > MAX_LABELS:
        raise invalid("labels", f"at most {MAX_LABELS} labels, not {len(labels)}")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise invalid(
                "labels", f"the key {key[:80]!r} is not allowed: 1 to 63 of a-z, A-Z, 0-9, '.', '_', '/', '-'"
            )
        if len(value) > MAX_LABEL_VALUE:
            raise invalid(f"labels.{key}", f"at most {MAX_LABEL_VALUE} characters")


def _check_identity(identity: Identity | None) -> None:
    if identity is None:
        return
    if not 0 < len(identity.platform) <= MAX_PLATFORM:
        raise invalid("originating_identity.platform", f"is required, at most {MAX_PLATFORM} characters")
    check_json(identity.value, "originating_identity.value")


def check_etag(etag: str, record: Instance | Binding | Operation | None) -> None:
    """Raise ETAG_MISMATCH when `etag` is given and is not that of the record; a missing record is judged elsewhere."""
    if not etag or record is None or etag == etag_of(record):
        return
    raise PurveyorError(
        Reason.ETAG_MISMATCH,
        "the resource changed since it was read: read it again",
        metadata={"etag": etag[:128], "current": etag_of(record)},
    )
