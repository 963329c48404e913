"""Limits on size and time; each ``MAX_`` is tested at n and at n + 1.

The limits of databases, of the service and of mail sessions are in their own modules.
"""

from __future__ import annotations

MAX_FILE_BYTES = 1024 * 1024
"""A manifest, provisioner.yaml or a template."""

MAX_DEPTH = 32
"""Mappings and sequences inside one another in a YAML file."""

MAX_NODES = 200_000
"""Keys, values, mappings and sequences in a YAML file."""

MAX_SCALAR = 64 * 1024
"""Characters of one key or value in a YAML file."""

MAX_PROBLEMS = 100
"""Problems reported of the text of one YAML file."""

MAX_FILES = 1_000_000
"""Manifest files of a workspace."""

MAX_FOLDER_DEPTH = 32
"""Folders inside one another below a manifest folder."""

MAX_EMAIL_BYTES = 254
"""An e-mail address (RFC 5321)."""

MAX_TEMPLATE_BYTES = 256 * 1024
"""One template of a letter; mail programs cut a letter off at 100 KB."""

MAX_RENDERED_CHARACTERS = 512 * 1024
"""One rendered part of a letter."""

MAX_RENDER_SECONDS = 5.0
"""The rendering of one letter."""

MAX_PLAN_BYTES = 256 * 1024 * 1024
"""A saved plan."""

MAX_REPLY_BYTES = 10 * 1024 * 1024
"""One reply of a portal's service."""

MAX_LISTED = 1_000_000
"""Users or groups of a SCIM server."""

REPLY_SECONDS = 30.0
"""From the first byte of a request to the last byte of its reply."""

CALL_TRIES = 5
"""How often one request is sent at most."""

CALL_SECONDS = 60.0
"""One request with all its retries."""

RETRY_FIRST_SECONDS = 0.1
"""The pause before the first retry of a request; it doubles with each further retry."""

RETRY_JITTER_SECONDS = 1.0
"""The maximum random addition to a pause, so that clients that failed together do not retry together."""
