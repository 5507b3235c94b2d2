"""Web page and HTTP API that fill holes in pictures.

    from ctx_encoder.apps import demo

    demo.serve(inpainter, demo.bind("127.0.0.1", 7860))

The page loads nothing from other servers.
"""

from ctx_encoder.apps.demo.app import Limits, make_app
from ctx_encoder.apps.demo.server import bind, serve

__all__ = ["Limits", "bind", "make_app", "serve"]
