"""The web console: static pages beside the API, read once when the process starts.

Everything that the console shows or does goes through the public API with the caller's own token; nothing served here is
secret, so it needs no token. Pages come with a policy that lets them load scripts, styles and data from this server only;
where people sign in at an identity provider, the page may also talk to that one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lablet_gateway.settings import OidcSettings

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = "/console"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    data: bytes
    media_type: str
    etag: str


def policy(oidc: OidcSettings) -> str:
    """What a page of the console may load and from where."""
    if not oidc.console_client_id:
        return _POLICY.format(connect="'self'")
    issuer = urlsplit(oidc.issuer)
    return _POLICY.format(connect=f"'self' {issuer.scheme}://{issuer.netloc}")


def routes(policy: str) -> list[Route]:
    """`/` is the page; its parts lie under `/console/`. `policy` goes with each."""
    assets = load(files(__name__) / "assets")

    async def page(request: Request) -> Response:
        return _answer(request, assets["index.html"], policy)

    async def part(request: Request) -> Response:
        asset = assets.get(request.path_params["path"])
        if asset is None:
            raise HTTPException(404)
        return _answer(request, asset, policy)

    return [Route("/", page, name="console"), Route(f"{_ASSETS}/{{path:path}}", part, name="console-part")]


def load(folder: Traversable, below: str = "") -> Mapping[str, Asset]:
    """Every file below the folder, by its path in it. Raises `LookupError` for a kind of file that has no media type."""
    found: dict[str, Asset] = {}
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            found |= load(entry, f"{below}{entry.name}/")
            continue
        suffix = f".{entry.name.rpartition('.')[2]}"
        if suffix not in _TYPES:
            raise LookupError(f"the console's file {below}{entry.name} has no media type")
        data = entry.read_bytes()
        found[below + entry.name] = Asset(data, _TYPES[suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


def _answer(request: Request, asset: Asset, policy: str) -> Response:
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": policy}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.data, headers=headers, media_type=asset.media_type)
