"""The calls of AdminService about catalogs: decode, one use-case, encode."""

# ruff: noqa: ARG002 - grpc hands a context to every handler

from __future__ import annotations

from typing import Any

from purveyor.v1 import catalog_admin_pb2 as pb
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.rpc.calls import current_caller
from purveyor_server.rpc.convert import catalogs as convert
from purveyor_server.rpc.convert.admin import decode_act


class CatalogCalls:
    """A part of the service of operators."""

    _admin: Administration

    async def ValidateCatalog(self, request: pb.ValidateCatalogRequest, context: Any) -> pb.ValidateCatalogResponse:
        return convert.encode_validation(await self._admin.validate_catalog(current_caller(), request.text))

    async def DiffCatalog(self, request: pb.DiffCatalogRequest, context: Any) -> pb.DiffCatalogResponse:
        found = await self._admin.diff_catalog(current_caller(), request.text, request.policies)
        return convert.encode_comparison(found)

    async def ApplyCatalog(self, request: pb.ApplyCatalogRequest, context: Any) -> pb.ApplyCatalogResponse:
        found = await self._admin.apply_catalog(
            current_caller(), request.text, request.policies, request.expected_version, decode_act(request)
        )
        return convert.encode_applied(found)

    async def ListCatalogs(self, request: pb.ListCatalogsRequest, context: Any) -> pb.ListCatalogsResponse:
        page = await self._admin.list_catalogs(current_caller(), request.page_size, request.page_token)
        catalogs = [convert.encode_version(version) for version in page.items]
        return pb.ListCatalogsResponse(catalogs=catalogs, next_page_token=page.next_page_token)

    async def GetCatalogVersion(
        self, request: pb.GetCatalogVersionRequest, context: Any
    ) -> pb.GetCatalogVersionResponse:
        found = await self._admin.catalog_version(current_caller(), request.version)
        return pb.GetCatalogVersionResponse(catalog=convert.encode_version(found), text=found.body)
