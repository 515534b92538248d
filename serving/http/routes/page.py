"""`/`: the page to try the service on. Its files lie in `serving/page`; nothing on it comes from elsewhere."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import serving

FILES = Path(serving.__file__).with_name("page")
ASSETS = "/page"
PATHS = ("/", ASSETS)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    # pictures that were chosen, and heat maps
    "img-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def add_page(app: FastAPI) -> None:
    """The page, and the files that it needs."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(FILES / "index.html", headers={"Content-Security-Policy": POLICY})

    app.include_router(router)
    app.mount(ASSETS, StaticFiles(directory=FILES))
