"""Web page and HTTP API that fill holes in pictures.

    from ctx_encoder.apps import demo

    demo.serve(inpainter, demo.bind("127.0.0.1", 7860))

The page loads nothing from other servers.
"""

from ctx_encoder.apps.demo.api import Limits
from ctx_encoder.apps.demo.app import make_app
from ctx_encoder.apps.demo.guard import allowed_hosts
from ctx_encoder.apps.demo.server import bind, serve

__all__ = ["Limits", "allowed_hosts", "bind", "make_app", "serve"]
