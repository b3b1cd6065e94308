"""The application: the only place that knows every part."""

from __future__ import annotations

import os

# Read by grpc when it is imported. Its fork handlers would complain at every program that a provider starts by exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from purveyor_server.kit.collector import without_collecting
from purveyor_server.kit.imports import without_rich

with without_collecting(), without_rich():
    from purveyor_server.app.audit import audit_keys_command, verify_backup_command, verify_export_command
    from purveyor_server.app.catalogs import judge_catalog
    from purveyor_server.app.commands import (
        check_command,
        new_key_command,
        new_provider_command,
        restore_command,
        serve,
        serve_command,
    )
    from purveyor_server.app.dev_certs import dev_certs_command
    from purveyor_server.app.refusals import Exit, StartRefusedError
    from purveyor_server.app.tokens import create_token_command

__all__ = [
    "Exit",
    "StartRefusedError",
    "audit_keys_command",
    "check_command",
    "create_token_command",
    "dev_certs_command",
    "judge_catalog",
    "new_key_command",
    "new_provider_command",
    "restore_command",
    "serve",
    "serve_command",
    "verify_backup_command",
    "verify_export_command",
]
