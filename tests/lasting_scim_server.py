"""Start scim2-server with a cache for the classes that it makes of its resource types.

pydantic drops them as soon as nothing references one, and the server then spends two thirds of its time on
making them again for each request. Its responses are the same.
"""

from __future__ import annotations

from functools import cache

from scim2_server import utils

utils.parametrize = cache(utils.parametrize)  # type: ignore[assignment]

if __name__ == "__main__":
    # only now: who imports that function has it for good
    from scim2_server.testserver.cli import main

    main()
