"""The SCIM 2.0 driver (RFC 7643, RFC 7644): companies are Groups, and access to them is membership.

A SCIM server enforces none of the portal's rules except that a ``userName`` belongs to one account, so the
driver checks the rules before each write. The driver uses these features of a server that has them:

    ETag       A write fails if the resource has changed since the driver read it. Without ETags, a write can
               overwrite such a change, and the portal is reported as *unguarded*.
    filter     The server searches resources. Without filters, the driver reads and searches all resources.
    PATCH      The driver sends only the changes. Without PATCH, it sends the whole resource (PUT).
    schemas/*  A server that loads these schemas of provisioner stores receipts, unfinished steps, status,
               endings, SIREN and billing. Others store them only in attributes that ``portal: scim:`` names.

The companies of a user are stored in other resources (Groups), so the user's ETag does not cover them. The
driver reads the Groups again before each write, and writes each membership separately, to preserve the edits
of other writers. The driver does not notice an edit that is made after this reading and before the write.

A server may accept a write but store something else, so the driver compares the returned resource with the
written one. A new account or company that was stored incompletely is deleted before anybody can log in.

A server changes nothing by itself: an application or billing stays after its last day. The driver does not
hide an application whose last day has passed, and a plan then removes the application.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from typing_extensions import override

from provisioner.diagnostics import Diagnostic, plural, warning
from provisioner.embedded.decide import StoredReceipt, repeated
from provisioner.errors import PortalError
from provisioner.model import State, User, email_key
from provisioner.portal import Access, Call, Capabilities, Portal, Receipt, Snapshot, read_only
from provisioner.portals.oauth import open_http_client
from provisioner.portals.scim.client import ScimClient, ScimError
from provisioner.portals.scim.completion import StepCompletion, uncompletable
from provisioner.portals.scim.directory import Directory
from provisioner.portals.scim.mapping import AttributeMap
from provisioner.portals.scim.path import Resource
from provisioner.portals.scim.pending import Pending
from provisioner.portals.scim.projection import project
from provisioner.portals.scim.steps import StepWriter


def open_scim(access: Access) -> ScimPortal:
    """Open the SCIM server at ``scim+https://HOST/PATH``. Raises :class:`PortalError`."""
    if access.client_id:
        raise PortalError(
            "A SCIM server is opened with a bearer token alone; no OAuth server is asked for one.",
            "Remove client_id and PROVISIONER_PORTAL_CLIENT, and give the token as the secret.",
        )
    address = access.url.removeprefix("scim+")
    parts = urlsplit(address)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise PortalError(f"{access.url} is no address of a SCIM server.", "Write scim+https://HOST/PATH.")
    return ScimPortal(access, ScimClient(open_http_client(access, address, kind="scim"), access.secret))


def identity(url: str) -> str:
    """Return the portal's identity: a hash of its URL, because a SCIM server has no identity of its own."""
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "scim+http" else 443)
    words = f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}{parts.path.rstrip('/')}"
    return hashlib.sha256(words.encode()).hexdigest()[:32]


class ScimPortal(Portal):
    """A portal that is a SCIM server, opened for one operator."""

    def __init__(self, access: Access, client: ScimClient) -> None:
        self._access = access
        self._client = client
        self._ledger = ""
        self._opened_directory: Directory | None = None

    @override
    def close(self) -> None:
        self._client.close()

    # --- what it is ---

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities(
            receipts=self._mapping.keeps_receipts,
            activation_links=False,
            versions=self._client.features.etag and self._directory.has_versions(),
            claims=False,
            leases=False,
        )

    @override
    def project(self, desired: State) -> tuple[State, Sequence[Diagnostic]]:
        projected, problems = project(desired, self._mapping)
        unfinished = sum(self._mapping.pending(user) is not None for user in self._directory.users())
        if unfinished:
            problems = [*problems, _cut_off(unfinished)]
        return projected, problems if self._mapping.keeps_receipts else [*problems, _no_receipts()]

    @override
    def hold(self, ledger: str, owner: str, fence: int, seconds: int) -> int:
        self._require_writing()
        self._ledger = ledger
        return fence

    @override
    def release(self) -> None:
        pass

    @override
    def claim(self, run: str, letters: Mapping[str, Collection[str]]) -> Mapping[str, str]:
        self._require_writing()
        return dict.fromkeys(letters, run)

    @override
    def activation_links(self, user_ids: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(user_ids, "")

    # --- reading ---

    @override
    def snapshot(self) -> Snapshot:
        self._directory.read_everything()
        state = self._directory.state
        users = {email_key(user.email): user for user in state.users.values()}
        return Snapshot(identity(self._access.url), State(state.companies, users), self._access.terms)

    @override
    def users(self, ids: Collection[str]) -> dict[str, User]:
        return {user.id: user for user in self.snapshot().state.users.values() if user.id in ids}

    @override
    def receipts(self, keys: Sequence[str], ledger: str) -> Mapping[str, Receipt]:
        # unfinished steps with these keys are finished first
        self._directory.read_everything()
        found = {key: self._receipt(key, ledger) for key in keys if key}
        return {key: receipt for key, receipt in found.items() if receipt is not None}

    def _receipt(self, key: str, ledger: str) -> Receipt | None:
        found = list(self._stored_receipts(key))
        # two ledgers may each have created an account with this key, if the first one's e-mail has changed
        stored = next((one for one in found if one.ledger == ledger), next(iter(found), None))
        return None if stored is None else repeated(key, stored, ledger)

    def _stored_receipts(self, key: str) -> Iterator[StoredReceipt]:
        for user in self._directory.users():
            stored = self._directory.user_receipt(user, key)
            pending = self._mapping.pending(user)
            if pending is not None and pending.key == key:
                stored = self._receipt_once_finished(user, pending)
            if stored is not None:
                yield stored
        for group in self._directory.groups():
            stored = self._directory.group_receipt(group, key)
            if stored is not None:
                yield stored

    def _receipt_once_finished(self, user: Resource, pending: Pending) -> StoredReceipt | None:
        """Return the receipt of the step ``pending``. If writing is allowed, first finish the step. If the
        server refuses this, the step is withdrawn, and the result is None unless another run has finished the
        step meanwhile. Raises :class:`PortalError` if the step can be neither finished nor withdrawn.
        """
        finished = user
        if self._access.writing:
            completion = StepCompletion(self._client, self._directory, self._ledger)
            try:
                finished = completion.finish(user, pending)
            except ScimError as problem:
                left = self._directory.user(user["id"])
                if left is not None and self._mapping.pending(left) == pending:
                    raise uncompletable(user, problem) from problem
                return self._directory.user_receipt(left, pending.key) if left is not None else None
        return StoredReceipt(user["id"], self._directory.user_version(finished), pending.ledger)

    # --- writing ---

    @override
    def execute(self, calls: Sequence[Call]) -> list[Receipt]:
        self._require_writing()
        self._directory.read_if_needed()
        steps = StepWriter(self._client, self._directory, self._access, self._ledger)
        return [steps.execute(call) for call in calls]

    # --- details ---

    @property
    def _directory(self) -> Directory:
        if self._opened_directory is None:
            features, access = self._client.features, self._access
            mapping = AttributeMap(access.scim, features.schemas, access.terms.apps)
            self._opened_directory = Directory(self._client, mapping, access.terms)
        return self._opened_directory

    @property
    def _mapping(self) -> AttributeMap:
        return self._directory.mapping

    def _require_writing(self) -> None:
        if not self._access.writing:
            raise read_only()


def _no_receipts() -> Diagnostic:
    return warning(
        "unguarded",
        "This server does not keep which writes are ours: a run that is killed in the middle of a step "
        "may leave it half done, and owe no welcome to whoever it was validating.",
        "Have it load schemas/scim-user.schema.json; or plan again after such a run, and look.",
    )


def _cut_off(count: int) -> Diagnostic:
    whom = f"{count} {plural(count, 'user is', 'users are')}"
    return warning(
        "cut-off",
        f"{whom} in the middle of a step, which is under way or was cut off; the plan shows how it ends.",
        "If no run is at work, the next apply with the ledger of the last one finishes it.",
    )
