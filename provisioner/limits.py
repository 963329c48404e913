"""The limits on sizes and times. The tests check each ``MAX_`` limit n with the values n and n + 1.

The limits for databases, for the service and for mail sessions are in the modules that apply them.
"""

from __future__ import annotations

MAX_FILE_BYTES = 1024 * 1024
"""The maximum size in bytes of a manifest, provisioner.yaml, or a file with a secret or certificates."""

MAX_DEPTH = 32
"""The maximum nesting depth of mappings and sequences in a YAML file."""

MAX_NODES = 200_000
"""The maximum total number of keys, values, mappings and sequences in a YAML file."""

MAX_SCALAR = 64 * 1024
"""The maximum number of characters of one key or value in a YAML file."""

MAX_PROBLEMS = 100
"""The maximum number of problems that are reported for the text of one YAML file."""

MAX_FILES = 1_000_000
"""The maximum number of manifest files in a workspace."""

MAX_FOLDER_DEPTH = 32
"""The maximum nesting depth of folders below a manifest folder."""

MAX_EMAIL_BYTES = 254
"""The maximum size in bytes of an e-mail address (RFC 5321)."""

MAX_TEMPLATE_BYTES = 256 * 1024
"""The maximum size in bytes of a letter template. It is ample: some mail programs cut letters at 100 KB."""

MAX_RENDERED_CHARACTERS = 512 * 1024
"""The maximum number of characters of the rendered subject, plain text or HTML of a letter."""

MAX_RENDER_SECONDS = 5.0
"""The maximum time in seconds to render one letter."""

MAX_PLAN_BYTES = 256 * 1024 * 1024
"""The maximum size in bytes of a saved plan."""

MAX_REPLY_BYTES = 10 * 1024 * 1024
"""The maximum size in bytes of one HTTP response from a portal."""

MAX_LISTED = 1_000_000
"""The maximum number of users, and also of groups, that a SCIM server may list."""

REPLY_SECONDS = 30.0
"""The maximum time in seconds for one attempt to send an HTTP request and to read the whole response."""

CALL_TRIES = 5
"""The maximum number of attempts to send one HTTP request."""

CALL_SECONDS = 60.0
"""The maximum time in seconds for one HTTP request, including all its retries."""

RETRY_FIRST_SECONDS = 0.1
"""The pause in seconds before the first retry of a request; each further pause is twice as long."""

RETRY_JITTER_SECONDS = 1.0
"""The maximum random time in seconds added to a pause. It spreads the retries of several clients."""
