"""
aiohttp's handler of static files, as its documentation has it; no access log.
"""

from __future__ import annotations

import sys

from aiohttp import web

folder, port = sys.argv[1:]
application = web.Application()
application.router.add_static("/", folder)
web.run_app(application, host="127.0.0.1", port=int(port), access_log=None, print=None)
