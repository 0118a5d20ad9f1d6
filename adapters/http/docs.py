"""The page to try the API: three files, which may load nothing but each other."""

from __future__ import annotations

from importlib.resources import files

import falcon

# What the page may do, whatever got into it: run its own script, ask this service, no more.
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
        "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip


class PageFile:
    """`/docs`, `/docs/page.css`, `/docs/page.js`"""

    def __init__(self, name: str, content_type: str) -> None:
        self._content = (files("adapters.http") / "page" / name).read_bytes()
        self._content_type = content_type

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = self._content_type
        resp.data = self._content
        resp.set_headers(
            {
                "Content-Security-Policy": POLICY,
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            }
        )


def page_files() -> dict[str, PageFile]:
    """The page's files by their paths."""
    return {
        "/docs": PageFile("index.html", "text/html; charset=utf-8"),
        "/docs/page.css": PageFile("page.css", "text/css; charset=utf-8"),
        "/docs/page.js": PageFile("page.js", "text/javascript; charset=utf-8"),
    }
