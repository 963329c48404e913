"""Starts scim2-server with a cache for the classes that the server creates from its resource types.

Without the cache, a class is deleted as soon as nothing references it. The server then spends two thirds of
its time on creating the classes again for each request. The cache does not change the responses.
"""

from __future__ import annotations

from functools import cache

from scim2_server import utils

utils.parametrize = cache(utils.parametrize)  # type: ignore[assignment]

if __name__ == "__main__":
    # only now: who imports that function has it for good
    from scim2_server.testserver.cli import main

    main()
