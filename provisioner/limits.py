"""The limits on sizes and times.

For each limit ``MAX_...``, the tests try a size equal to the limit and a size that is greater by one.
The limits for databases, for the service and for mail sessions are in the modules that apply them.
"""

from __future__ import annotations

MAX_FILE_BYTES = 1024 * 1024
"""The maximum size in bytes of provisioner.yaml and of each manifest, secret file and certificate file."""

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
"""The maximum size in bytes of a letter template. Some mail programs already cut off letters at 100 KB."""

MAX_RENDERED_CHARACTERS = 512 * 1024
"""The maximum number of characters of each rendered part of a letter: subject, plain text and HTML."""

MAX_RENDER_SECONDS = 5.0
"""The maximum time in seconds to render one letter."""

MAX_PLAN_BYTES = 256 * 1024 * 1024
"""The maximum size in bytes of a saved plan."""

MAX_REPLY_BYTES = 10 * 1024 * 1024
"""The maximum size in bytes of one HTTP response from a portal."""

MAX_LISTED = 1_000_000
"""The maximum number of users in the list of a SCIM server. The same maximum applies to its groups."""

MAX_PARALLELISM = 100
"""The maximum number of concurrent steps on a portal that is reached over the network."""

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
