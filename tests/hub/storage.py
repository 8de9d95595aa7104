"""What the local Hub stores: accounts, repositories with git-like history, and large files by their SHA-256.

Blob ids are the true git SHA-1 of what git would hold (for a large file: of its pointer), because clients compare them
with what they compute themselves. Commit ids are SHA-1 digests of the same kind, over a text of our own.
"""

import dataclasses
import datetime
import hashlib
import itertools
import secrets
import shutil
import threading
from pathlib import Path

GITATTRIBUTES = b"".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n".encode()
    for pattern in ("*.bin", "*.onnx", "*.pt", "*.safetensors", "*.zip")
)
LFS_SUFFIXES = (".bin", ".onnx", ".pt", ".safetensors", ".zip")
# What the Hub puts into a new static Space.
NEW_SPACE = {
    "README.md": b"---\ntitle: Demo\nsdk: static\n---\n",
    "index.html": b"<p>Welcome to your static Space!</p>\n",
    "style.css": b"p { color: gray }\n",
}
LARGEST_REGULAR_FILE = 10 * 2**20


class Refusal(Exception):  # noqa: N818
    """A request that the Hub answers with an error."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclasses.dataclass(frozen=True)
class Account:
    """Who a token belongs to, and what it may do.

    Attributes:
        name: of the user.
        role: of the token: read, write or fineGrained.
        organizations: the user's role in each.
        scopes: permissions of a fine-grained token by user, organisation or repository; by "" everywhere.
        expired: whether the token is.
    """

    name: str
    role: str = "write"
    organizations: dict[str, str] = dataclasses.field(default_factory=dict)
    scopes: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    expired: bool = False

    def may_write(self, repo: str) -> bool:
        repo = repo.removeprefix("spaces/")
        namespace = repo.partition("/")[0]
        belongs = namespace == self.name or self.organizations.get(namespace) in ("admin", "write", "contributor")
        return belongs and (self.role == "write" or "repo.write" in self._granted(repo))

    def may_propose(self, repo: str) -> bool:
        repo = repo.removeprefix("spaces/")
        return self.role == "write" or not {"repo.write", "discussion.write"}.isdisjoint(self._granted(repo))

    def _granted(self, repo: str) -> set[str]:
        return {item for name in ("", repo.partition("/")[0], repo) for item in self.scopes.get(name, ())}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of a tree: its content, or the id of a large file."""

    content: bytes = b""
    sha256: str | None = None
    lfs_size: int = 0

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.lfs_size}\n".encode()

    @property
    def size(self) -> int:
        return self.lfs_size if self.sha256 else len(self.content)

    @property
    def oid(self) -> str:
        data = self.pointer if self.sha256 else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclasses.dataclass(frozen=True)
class Commit:
    """A tree, and what came before it."""

    tree: dict[str, Entry]
    parent: str | None
    title: str
    author: str
    message: str = ""
    nonce: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))
    date: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    )

    @property
    def oid(self) -> str:
        listing = "".join(f"{path} {entry.oid}\n" for path, entry in sorted(self.tree.items()))
        text = f"{listing}\0{self.parent}\0{self.author}\0{self.title}\0{self.nonce}"
        return hashlib.sha1(text.encode()).hexdigest()


@dataclasses.dataclass
class PullRequest:
    number: int
    title: str
    author: str
    date: str
    status: str = "open"


class Repository:
    """One model repository, or Space: commits, branches, tags, pull requests."""

    def __init__(self, name: str, owner: str, private: bool) -> None:
        self.id, self.private = name, private
        self.resource_group: str | None = None
        self.gated_except: tuple[str, ...] | None = None  # None: not gated; otherwise who may read the files
        self.quota: int | None = None  # bytes of large files that it may hold
        self.large_files: set[str] = set()  # uploaded for this repository, committed or not
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.pull_requests: dict[str, PullRequest] = {}  # by ref, as in refs/pr/1; its head is in `branches`
        self.lock = threading.RLock()
        files = {".gitattributes": GITATTRIBUTES} | (NEW_SPACE if name.startswith("spaces/") else {})
        first = Commit({path: Entry(content) for path, content in files.items()}, None, "initial commit", owner)
        self.commits[first.oid] = first
        self.branches["main"] = first.oid

    @property
    def namespace(self) -> str:
        return self.id.removeprefix("spaces/").partition("/")[0]

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag, pull request or commit id stands for."""
        for refs in (self.branches, self.tags):
            if revision in refs:
                return refs[revision]
        if revision in self.commits:
            return revision
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tree(self, revision: str = "main") -> dict[str, Entry]:
        return self.commits[self.resolve(revision)].tree

    def history(self, revision: str = "main") -> list[Commit]:
        """Newest first."""
        found, oid = [], self.resolve(revision)
        while oid is not None:
            found.append(self.commits[oid])
            oid = self.commits[oid].parent
        return found

    def commit(
        self, revision: str, tree: dict[str, Entry], parent: str, title: str, author: str, message: str = ""
    ) -> Commit:
        """Put `tree` on top of a branch; the caller holds the lock and has checked that `parent` is its head."""
        made = Commit(tree, parent, title, author, message)
        self.commits[made.oid] = made
        self.branches[revision] = made.oid
        return made

    def open_pull_request(self, parent: str, tree: dict[str, Entry], title: str, author: str) -> tuple[int, Commit]:
        number = len(self.pull_requests) + 1
        ref = f"refs/pr/{number}"
        made = self.commit(ref, tree, parent, title, author)
        self.pull_requests[ref] = PullRequest(number, title, author, made.date)
        return number, made


class LargeFiles:
    """Content-addressed files on disk, so that memory stays flat however large they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counter = itertools.count()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def part_path(self, sha256: str, part: int) -> Path:
        return self.folder / f"{sha256}.part{part}"

    def scratch(self) -> Path:
        return self.folder / f"incoming-{next(self._counter)}"

    def holds(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def keep(self, incoming: Path, sha256: str) -> None:
        """Take a complete upload in; refused when its bytes are not what its name says."""
        with incoming.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            incoming.unlink()
            raise Refusal(400, "The content does not match the object id")
        incoming.replace(self.path(sha256))

    def join_parts(self, sha256: str, count: int) -> None:
        incoming = self.scratch()
        with incoming.open("wb") as target:
            for part in range(1, count + 1):
                with self.part_path(sha256, part).open("rb") as source:
                    while block := source.read(2**20):
                        target.write(block)
        self.keep(incoming, sha256)
        for part in range(1, count + 1):
            self.part_path(sha256, part).unlink()


class Storage:
    """Everything that one local Hub knows."""

    def __init__(self, folder: Path) -> None:
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}
        self.private_by_default: set[str] = set()  # namespaces
        self.without_spaces: set[str] = set()  # namespaces
        self.large_files = LargeFiles(folder / "lfs")
        self.lock = threading.RLock()

    def create(self, name: str, owner: str, private: bool = False) -> Repository:
        with self.lock:
            if name in self.repositories:
                raise Refusal(409, "You already created this model repo")
            self.repositories[name] = Repository(name, owner, private)
            return self.repositories[name]

    def hold(self, name: str, folder: Path) -> Repository:
        """A repository with the files of a folder."""
        repository = self.create(name, name.partition("/")[0])
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        tree = repository.tree() | {path: self.store(file) for path, file in files.items()}
        repository.commit("main", tree, repository.branches["main"], "files", repository.namespace)
        return repository

    def store(self, file: Path) -> Entry:
        """A file as a commit has it."""
        if file.suffix not in LFS_SUFFIXES:
            return Entry(file.read_bytes())
        incoming, sha256 = self.large_files.scratch(), hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, incoming)
        self.large_files.keep(incoming, sha256)
        return Entry(sha256=sha256, lfs_size=file.stat().st_size)

    def find(self, name: str, account: Account | None) -> Repository:
        """The repository, if this account may know of it."""
        found = self.repositories.get(name)
        visible = found is not None and (
            not found.private or (account is not None and found.namespace in (account.name, *account.organizations))
        )
        if found is not None and visible:
            return found
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        raise Refusal(404, "Repository not found", "RepoNotFound")

    def content(self, entry: Entry) -> bytes | Path:
        return self.large_files.path(entry.sha256) if entry.sha256 else entry.content
