"""A page to fill holes in pictures with, and an HTTP API beside it.

    from ctx_encoder import demo

    demo.serve(inpainter, demo.bind("127.0.0.1", 7860))

Everything that the page needs comes from this server; it asks no other.
"""

from ctx_encoder.apps.demo.app import Limits, make_app
from ctx_encoder.apps.demo.server import bind, serve

__all__ = ["Limits", "bind", "make_app", "serve"]
