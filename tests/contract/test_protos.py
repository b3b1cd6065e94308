"""The contract holds what it promises: complete method table, redacted secrets, documented reasons, nothing broken.

Guarantee: judged from the descriptors that buf builds of this tree, comments included, so no generated stub is trusted.
Limit: whether the server answers with the reasons that a method lists is for the tests of the faces.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
BUF = Path(sys.executable).parent / "buf"
BUF_TIMEOUT_SECONDS = 60
METHODS = {
    "GetCatalog": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "Provision": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "UpdateInstance": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "Deprovision": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "GetInstance": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "ListInstances": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "Bind": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "RenewBinding": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "RotateBinding": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "Unbind": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "GetBinding": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "ListBindings": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "GetCredentials": ("IDEMPOTENT", "ROLE_CREDENTIALS_READER"),
    "GetOperation": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "ListOperations": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "WaitOperation": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "CancelOperation": ("IDEMPOTENT", "ROLE_CONSUMER"),
    "WatchOperation": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "WatchEvents": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "WatchCatalog": ("NO_SIDE_EFFECTS", "ROLE_VIEWER"),
    "SyncInventory": ("IDEMPOTENT", "ROLE_PLATFORM"),
    "ClaimInstance": ("IDEMPOTENT", "ROLE_PLATFORM"),
}
WATCHES = {"WatchOperation", "WatchEvents", "WatchCatalog"}
ADMIN = {
    "GetStatus": "NO_SIDE_EFFECTS",
    "ExplainOperation": "NO_SIDE_EFFECTS",
    "Freeze": "IDEMPOTENT",
    "Thaw": "IDEMPOTENT",
    "PurgeInstance": "IDEMPOTENT",
    "PurgeBinding": "IDEMPOTENT",
    "ListExpiringBindings": "NO_SIDE_EFFECTS",
    "ForceRevokeBinding": "IDEMPOTENT",
    "EditStep": "IDEMPOTENT",
    "RetryOperation": "IDEMPOTENT",
    "CleanUpOperation": "IDEMPOTENT",
    "AbandonOperation": "IDEMPOTENT",
    "ListAuditRecords": "NO_SIDE_EFFECTS",
    "VerifyAudit": "NO_SIDE_EFFECTS",
    "SetLogLevel": "IDEMPOTENT",
    "Backup": "NO_SIDE_EFFECTS",
    "ReviewRecovery": "NO_SIDE_EFFECTS",
    "FinishRecovery": "IDEMPOTENT",
    "ListOrphans": "NO_SIDE_EFFECTS",
    "SweepInventory": "IDEMPOTENT",
    "QuarantineOrphan": "IDEMPOTENT",
    "ReleaseOrphan": "IDEMPOTENT",
    "ReapOrphan": "IDEMPOTENT",
    "IgnoreOrphan": "IDEMPOTENT",
    "ResumeSweep": "IDEMPOTENT",
    "RebuildReport": "NO_SIDE_EFFECTS",
    "ListKeys": "NO_SIDE_EFFECTS",
    "RotateKeys": "IDEMPOTENT",
    "RetireKey": "IDEMPOTENT",
    "ListQuotas": "NO_SIDE_EFFECTS",
    "CreateCampaign": "IDEMPOTENT",
    "GetCampaign": "NO_SIDE_EFFECTS",
    "ListCampaigns": "NO_SIDE_EFFECTS",
    "ListCampaignItems": "NO_SIDE_EFFECTS",
    "PauseCampaign": "IDEMPOTENT",
    "ResumeCampaign": "IDEMPOTENT",
    "AbortCampaign": "IDEMPOTENT",
    "RetryCampaign": "IDEMPOTENT",
    "WatchCampaign": "NO_SIDE_EFFECTS",
    "Drain": "IDEMPOTENT",
    "RotateRootCredentials": "IDEMPOTENT",
    "ObserveInstance": "IDEMPOTENT",
    "ListDrift": "NO_SIDE_EFFECTS",
    "PauseReconciliation": "IDEMPOTENT",
    "ResumeReconciliation": "IDEMPOTENT",
    "RepairInstance": "IDEMPOTENT",
    "AdoptInstance": "IDEMPOTENT",
    "ValidateCatalog": "NO_SIDE_EFFECTS",
    "DiffCatalog": "NO_SIDE_EFFECTS",
    "ApplyCatalog": "IDEMPOTENT",
    "ListCatalogs": "NO_SIDE_EFFECTS",
    "GetCatalogVersion": "NO_SIDE_EFFECTS",
    "ListPlatformOrphans": "NO_SIDE_EFFECTS",
}
# CreateToken alone cannot be sent again: what its first answer showed is shown once.
TOKENS = {"CreateToken": "", "ListTokens": "NO_SIDE_EFFECTS", "RevokeToken": "IDEMPOTENT"}
QUOTAS = {"SetQuota": "IDEMPOTENT", "DeleteQuota": "IDEMPOTENT"}
ADMIN_ROLES = {"ListAuditRecords": "ROLE_ADMIN", "VerifyAudit": "ROLE_ADMIN"}  # the others: ROLE_OPERATOR
MUTATING = {
    "Provision", "UpdateInstance", "Deprovision", "Bind", "Unbind", "RenewBinding", "RotateBinding", "CancelOperation",
}  # fmt: skip
SECRET = re.compile(r"(^|_)(credentials?|secrets?|passwords?|parameters|mount_config|drain_url|route_service_url)$")
SCHEMAS_NOT_SECRETS = {"Schemas"}


class Comment(NamedTuple):
    """A declared thing, as the path of its names, and the comment before it."""

    path: str
    text: str


def run_buf(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(BUF), *arguments], cwd=cwd, capture_output=True, timeout=BUF_TIMEOUT_SECONDS, check=False
    )


def build(root: Path) -> descriptor_pb2.FileDescriptorSet:
    built = run_buf("build", "-o", "-#format=binpb", cwd=root)
    assert built.returncode == 0, built.stderr.decode()
    return descriptor_pb2.FileDescriptorSet.FromString(built.stdout)


@pytest.fixture(scope="module")
def files() -> descriptor_pb2.FileDescriptorSet:
    return build(ROOT)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the contract that a test may damage."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path


def damage(root: Path, name: str, old: str, new: str) -> None:
    path = root / "protos/purveyor/v1" / name
    text = path.read_text()
    assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new))


def ours(files: descriptor_pb2.FileDescriptorSet) -> list[descriptor_pb2.FileDescriptorProto]:
    return [file for file in files.file if file.package == "purveyor.v1"]


def method_table(files: descriptor_pb2.FileDescriptorSet) -> dict[str, tuple[str, str]]:
    """Method name -> idempotency level and required role, as declared (each "" when it is not)."""
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    options_class: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.MethodOptions"))
    role: Any = pool.FindExtensionByName("purveyor.v1.required_role")
    table = {}
    for method in (m for file in ours(files) for service in file.service for m in service.method):
        options = options_class.FromString(method.options.SerializeToString())
        level = options_class.IdempotencyLevel.Name(options.idempotency_level)
        name = role.enum_type.values_by_number[options.Extensions[role]].name if options.HasExtension(role) else ""
        table[method.name] = ("" if level == "IDEMPOTENCY_UNKNOWN" else level, name)
    return table


def messages(files: descriptor_pb2.FileDescriptorSet) -> Iterator[descriptor_pb2.DescriptorProto]:
    for file in ours(files):
        yield from file.message_type


def unredacted(files: descriptor_pb2.FileDescriptorSet) -> list[str]:
    """Fields that hold or may hold a secret and do not say so."""
    return [
        f"{message.name}.{field.name}"
        for message in messages(files)
        for field in message.field
        if (message.name == "Credentials" or SECRET.search(field.name) or field.type_name == ".purveyor.v1.Credentials")
        and message.name not in SCHEMAS_NOT_SECRETS
        and not field.options.debug_redact
    ]


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {tuple(place.path): place.leading_comments for place in file.source_code_info.location}


def reason_comments(files: descriptor_pb2.FileDescriptorSet) -> list[Comment]:
    file = next(f for f in ours(files) if f.name.endswith("error_reason.proto"))
    texts = comments(file)
    return [
        Comment(value.name.removeprefix("ERROR_REASON_"), " ".join(texts.get((5, 0, 2, index), "").split()))
        for index, value in enumerate(file.enum_type[0].value)
        if value.number
    ]


def undocumented(reasons: list[Comment]) -> list[str]:
    """Reasons without a known code, what they end, or an example that begins with the reason itself."""
    codes = set(importlib.import_module("google.rpc.code_pb2").Code.keys())
    found = []
    for name, text in reasons:
        match = re.fullmatch(
            r"\S.+\. Code: ([A-Z_]+)\. Ends: (call|operation)\. Example: ([A-Z_]+) \{.*\} \".+\"\.", text
        )
        if not match or match[1] not in codes or match[3] != name:
            found.append(name)
    return found


def method_comments(files: descriptor_pb2.FileDescriptorSet) -> tuple[str, dict[str, str]]:
    """The services' own comments, and each method's."""
    whole = ""
    methods: dict[str, str] = {}
    for file in (f for f in ours(files) if f.service):
        texts = comments(file)
        methods |= {m.name: " ".join(texts[(6, 0, 2, i)].split()) for i, m in enumerate(file.service[0].method)}
        whole += " ".join(texts[(6, 0)].split())
    return whole, methods


def named_reasons(text: str) -> set[str]:
    _, _, tail = text.partition("Reasons")
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\b(?:DRAINING|INTERNAL|COMPACTED|UNAUTHENTICATED)\b", tail))


def test_method_table_is_complete(files: descriptor_pb2.FileDescriptorSet) -> None:
    operators = {name: (level, ADMIN_ROLES.get(name, "ROLE_OPERATOR")) for name, level in ADMIN.items()}
    administrators = {name: (level, "ROLE_ADMIN") for name, level in (TOKENS | QUOTAS).items()}
    assert method_table(files) == METHODS | operators | administrators


def test_method_without_role_or_level_is_found(copy: Path) -> None:
    text = "    option idempotency_level = IDEMPOTENT;\n    option (required_role) = ROLE_CREDENTIALS_READER;\n"
    damage(copy, "broker_service.proto", text, "")
    assert method_table(build(copy))["GetCredentials"] == ("", "")


def test_every_act_of_an_operator_has_a_reason_and_can_be_tried(files: descriptor_pb2.FileDescriptorSet) -> None:
    fields = {message.name: {field.name for field in message.field} for message in messages(files)}
    for method in (name for name, level in ADMIN.items() if level == "IDEMPOTENT"):
        assert {"reason", "request_id", "validate_only"} <= fields[f"{method}Request"], method


def test_only_watches_and_long_answers_are_streams(files: descriptor_pb2.FileDescriptorSet) -> None:
    methods = [m for file in ours(files) for service in file.service for m in service.method]
    assert {m.name for m in methods if m.server_streaming} == WATCHES | {
        "WatchCampaign",
        "Backup",
        "ReviewRecovery",
        "RotateKeys",
        "SweepInventory",
        "RebuildReport",
        "VerifyAudit",
    }
    assert [m.name for m in methods if m.client_streaming] == ["SyncInventory"]


def test_every_mutating_request_is_repeatable_and_testable(files: descriptor_pb2.FileDescriptorSet) -> None:
    fields = {message.name: {field.name for field in message.field} for message in messages(files)}
    for method in MUTATING:
        assert {"tenant", "request_id", "validate_only", "wait"} <= fields[f"{method}Request"], method
    for method in MUTATING - {"Provision", "Bind"}:
        assert "etag" in fields[f"{method}Request"], method
    for method in METHODS:
        assert "tenant" in fields[f"{method}Request"], method


def test_imports_are_well_known_types_only(files: descriptor_pb2.FileDescriptorSet) -> None:
    allowed = ("google/protobuf/", "purveyor/v1/")
    assert not [d for file in ours(files) for d in file.dependency if not d.startswith(allowed)]


def test_every_secret_field_is_redacted(files: descriptor_pb2.FileDescriptorSet) -> None:
    assert unredacted(files) == []


def test_unredacted_secret_is_found(copy: Path) -> None:
    damage(copy, "catalog.proto", "string secret = 2 [debug_redact = true];", "string secret = 2;")
    damage(copy, "binding.proto", "values = 1 [debug_redact = true];", "values = 1;")
    assert unredacted(build(copy)) == ["DashboardClient.secret", "Credentials.values"]


def test_credentials_are_not_part_of_a_binding(files: descriptor_pb2.FileDescriptorSet) -> None:
    holders = {m.name for m in messages(files) for f in m.field if f.type_name == ".purveyor.v1.Credentials"}
    assert holders == {"BindResponse", "RotateBindingResponse", "GetCredentialsResponse"}


def test_every_reason_is_documented_with_an_example(files: descriptor_pb2.FileDescriptorSet) -> None:
    reasons = reason_comments(files)
    assert undocumented(reasons) == []
    assert all(len(reason.path) <= 63 for reason in reasons)


def test_reason_without_example_is_found(copy: Path) -> None:
    damage(copy, "error_reason.proto", "Example: DRAINING", "Such as: DRAINING")
    assert undocumented(reason_comments(build(copy))) == ["DRAINING"]


def test_methods_name_known_reasons_and_leave_none_out(files: descriptor_pb2.FileDescriptorSet) -> None:
    service, methods = method_comments(files)
    assert [name for name, text in methods.items() if "Reasons:" not in text] == []
    named = named_reasons(service).union(*(named_reasons(text) for text in methods.values()))
    reasons = reason_comments(files)
    assert named - {reason.path for reason in reasons} == set()
    assert {r.path for r in reasons if "Ends: call." in r.text} - named == set()
    assert {r.path for r in reasons if "Ends: operation." in r.text} & named == set()


def test_status_has_the_bytes_of_google_rpc_status(files: descriptor_pb2.FileDescriptorSet) -> None:
    status = next(m for m in messages(files) if m.name == "Status")
    theirs = importlib.import_module("google.rpc.status_pb2").Status.DESCRIPTOR.fields
    assert [(f.name, f.number, int(f.type), f.type_name.lstrip(".")) for f in status.field] == [
        (f.name, f.number, f.type, f.message_type.full_name if f.message_type else "") for f in theirs
    ]


def test_service_config_retries_every_method_on_unavailable_only() -> None:
    config = json.loads((PROTOS / "service_config.json").read_text())
    (entry,) = config["methodConfig"]
    named = [(name["service"].removeprefix("purveyor.v1."), name["method"]) for name in entry["name"]]
    wanted = [
        *(("BrokerService", name) for name in METHODS),
        *(("AdminService", name) for name in (*ADMIN, *TOKENS, *QUOTAS) if name != "CreateToken"),
    ]
    assert sorted(named) == sorted(wanted)
    assert entry["retryPolicy"] == {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    assert config["retryThrottling"] == {"maxTokens": 10, "tokenRatio": 0.1}


def test_lint_format_and_breaking_are_clean() -> None:
    for arguments in (("lint",), ("format", "-d", "--exit-code"), ("breaking", "--against", "protos/baseline.binpb")):
        ran = run_buf(*arguments)
        assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


def uncomment(root: Path) -> None:
    damage(root, "options.proto", "  // Runs the broker: may read what is written for operators.\n", "")


def misformat(root: Path) -> None:
    damage(root, "options.proto", "  ROLE_ADMIN = 6;", "     ROLE_ADMIN=6;")


def renumber(root: Path) -> None:
    damage(root, "operation.proto", "double percent = 10;", "double percent = 99;")


def remove_method(root: Path) -> None:
    text = (root / "protos/purveyor/v1/broker_service.proto").read_text()
    found = re.search(r"  rpc WaitOperation\(.*?\n  }\n", text, re.DOTALL)
    assert found
    damage(root, "broker_service.proto", found[0], "  // Nothing more.\n")


@pytest.mark.parametrize(
    ("fault", "command", "named"),
    [
        (uncomment, ("lint",), "ROLE_OPERATOR"),
        (misformat, ("format", "-d", "--exit-code"), "ROLE_ADMIN"),
        (renumber, ("breaking", "--against", "protos/baseline.binpb"), "percent"),
        (remove_method, ("breaking", "--against", "protos/baseline.binpb"), "WaitOperation"),
    ],
)
def test_planted_fault_is_found(
    copy: Path, fault: Callable[[Path], None], command: tuple[str, ...], named: str
) -> None:
    assert run_buf(*command, cwd=copy).returncode == 0
    fault(copy)
    ran = run_buf(*command, cwd=copy)
    assert ran.returncode != 0
    assert named in (ran.stdout + ran.stderr).decode()
