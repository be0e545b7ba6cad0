"""The registry of model versions: what each one is, and which one an alias stands for.

Two collections of a MongoDB database (FiftyOne's own, so that every worker sees them):

    mbari_versions   _id "<model>/<version>", then the fields of `VersionRecord`; inserted once, never changed
    mbari_aliases    _id "<model>@<alias>", model, alias, version, history: [AliasChange]; moved by compare-and-set

MongoDB keeps `_id` unique and changes one document atomically: that is all that several workers writing at
once need, without transactions (a single server has none) and without an index that might not be built yet.
"""

import difflib
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from ..artifacts import FileInfo
from ..errors import InputError, StorageError

VERSIONS = "mbari_versions"
ALIASES = "mbari_aliases"
CANDIDATE = "candidate"  # what a bare model name stands for: the alias that training moves
PRODUCTION = "production"  # the protected alias, which has an operator of its own

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
VERSION = re.compile(r"\d{8}T\d{6}_[0-9a-f]{6}")
ANY: Final[Any] = object()  # for `expected`: whatever the alias holds now

logger = logging.getLogger(__name__)
Record = TypeVar("Record", bound=BaseModel)


def check_name(name: str, what: str = "model name") -> str:
    """Returns `name` if a URI, a folder and a field name can carry it, else raises InputError."""
    if not NAME.fullmatch(name):
        raise InputError(
            f'The {what} "{name}" cannot be used: it takes 1 to 100 of the letters a-z and A-Z, digits, "-", "_" '
            'and ".", and begins with a letter or a digit.'
        )
    return name


def is_registered(name: str) -> bool:
    """Whether a name means the registry (`ptvr`, `ptvr@production`, `ptvr/<version>`) and not a file or a hub."""
    path = Path(name).expanduser()
    if "://" in name or path.suffix in (".pt", ".yaml", ".yml") or path.exists():
        return False
    return name.count("/") < 2 and not name.startswith((".", "/", "~"))


def new_version(now: datetime | None = None) -> str:
    """A new version name, `YYYYMMDDTHHMMSS_<6 hex>`: UTC (a naive `now` is taken as UTC) and a random end."""
    now = _utc(now or datetime.now(UTC))
    return f"{now:%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"


def _utc(time: datetime) -> datetime:
    """The same instant in UTC, in the milliseconds that MongoDB keeps; it hands them back without a zone."""
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


Time = Annotated[datetime, AfterValidator(_utc)]


class VersionRecord(BaseModel):
    """One immutable model version; the files themselves lie below the artifact root."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # a newer suite may have written more

    model: str = Field(pattern=f"^{NAME.pattern}$")
    version: str = Field(pattern=f"^{VERSION.pattern}$")
    uri: str  # where the version's folder lies, in full
    key: str  # the same below the artifact root, so that a root may be moved
    files: dict[str, FileInfo]  # by path inside the folder, such as "plots/confusion.png"
    classes: list[str]  # in the order of the network's outputs
    framing: str
    imgsz: int = Field(gt=0)  # pixels, the side of the square the network sees
    manifest_digest: str
    class_counts: dict[str, int] = {}  # images of each class it was trained on
    metrics: dict[str, Any] = {}  # JSON-ready, by split
    training: dict[str, Any] = {}  # JSON-ready: arguments, library versions, device, durations, seed
    base: str | None = None  # the weights it started from, as they were asked for
    base_sha256: str | None = None
    base_version: str | None = None  # `<model>/<version>` of the registry that `base` stood for
    dataset: str | None = None
    dataset_id: str | None = None
    label_field: str = "ground_truth"
    extra_views: list[str] = []
    created_at: Time = Field(default_factory=lambda: datetime.now(UTC))
    created_by: str | None = None
    run_id: str | None = None

    @property
    def name(self) -> str:
        """`<model>/<version>`, which `Registry.resolve` takes."""
        return f"{self.model}/{self.version}"

    @property
    def prediction_field(self) -> str:
        """The sample field that this version's predictions go to unless another is named."""
        return f"pred_{re.sub(r'[^A-Za-z0-9]', '_', self.model)}_{self.version[-6:]}"


class AliasChange(BaseModel):
    """One move of an alias, as its history keeps it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    previous: str | None
    at: Time
    by: str | None = None
    reason: str | None = None
    run_id: str | None = None
    kind: Literal["set", "promote", "rollback"] = "set"
    forced: bool = False  # moved although a gate had failed
    gates: list[dict[str, Any]] = []  # what was checked, each as a row of a table
    loosened: list[str] = []  # bounds of gates that asked for less than usual, in words


def standing(history: Sequence[AliasChange]) -> list[str]:
    """The versions that an alias can be rolled back through, the present one last.

    A move puts a version on top of the others, a rollback takes the topmost away: so the second of two rollbacks
    goes one further back, and not forth again.
    """
    versions: list[str] = []
    for change in history:
        if change.kind != "rollback":
            versions.append(change.version)
        elif versions:
            versions.pop()
    return versions


class Registry:
    """Model versions and aliases in one MongoDB database; safe to use from many workers at once."""

    def __init__(self, db: Database) -> None:
        """Opens the registry in `db`; nothing is read or written yet."""
        self._versions = db[VERSIONS]
        self._aliases = db[ALIASES]

    def add(self, record: VersionRecord) -> None:
        """Registers a version for good; InputError when that version exists already."""
        try:
            self._versions.insert_one({"_id": record.name, **record.model_dump()})
        except DuplicateKeyError:
            raise InputError(
                f'Version "{record.name}" is registered already, and versions never change: make a new version.'
            ) from None

    def get(self, model: str, version: str) -> VersionRecord:
        """The record of one version; InputError naming what there is when it does not exist."""
        found = self._versions.find_one({"_id": f"{model}/{version}"})
        if found is None:
            raise self._unknown(model, "version", version, self._version_names(model))
        return _parse(VersionRecord, found, f'version "{model}/{version}"')

    def versions(self, model: str | None = None) -> list[VersionRecord]:
        """All versions (of one model), newest first; one that cannot be read is left out with a warning."""
        records = []
        for found in self._versions.find({} if model is None else {"model": model}):
            try:
                records.append(_parse(VersionRecord, found, f'version "{found["_id"]}"'))
            except StorageError as error:
                logger.warning("%s", error)
        return sorted(records, key=lambda record: (record.created_at, record.name), reverse=True)

    def models(self) -> list[str]:
        """The names of all models, sorted."""
        return sorted(self._versions.distinct("model"))

    def resolve(self, name: str) -> VersionRecord:
        """The version meant by `ptvr@production`, `ptvr/<version>`, or `ptvr` (its candidate).

        Raises:
            InputError: there is no such model, version or alias; the message names the nearest and the existing.
            StorageError: the record is there and cannot be read.
        """
        name = name.strip()
        if "://" in name or name.startswith(("/", "~", ".")):
            raise InputError(
                f'"{name}" is a file or an address, not a version of the registry: give <model>, <model>@<alias> or '
                "<model>/<version>."
            )
        if "/" in name:
            return self.get(*name.split("/", 1))
        model, _, alias = name.partition("@")
        alias = alias or CANDIDATE
        aliases = self.aliases(model)
        if alias not in aliases:
            raise self._unknown(model, "alias", alias, list(aliases))
        return self.get(model, aliases[alias])

    def aliases(self, model: str) -> dict[str, str]:
        """The version that each alias of the model holds, by alias, sorted."""
        found = self._aliases.find({"model": model}, {"alias": 1, "version": 1})
        return {entry["alias"]: entry["version"] for entry in sorted(found, key=lambda entry: entry["alias"])}

    def history(self, model: str, alias: str) -> list[AliasChange]:
        """Every move of the alias, oldest first; empty when it was never set."""
        return self._held(model, alias)[1]

    def set_alias(
        self,
        model: str,
        alias: str,
        version: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        run_id: str | None = None,
        expected: Any = ANY,
        kind: Literal["set", "promote"] = "set",
        forced: bool = False,
        gates: Sequence[Mapping[str, Any]] = (),
        loosened: Sequence[str] = (),
    ) -> AliasChange | None:
        """Moves an alias to a version and appends to its history, in one atomic step.

        Args:
            model: the model.
            alias: the alias, such as `candidate`; made when it does not exist.
            version: a registered version of the model. An alias that holds it already is left alone.
            by: who asked for it.
            reason: why.
            run_id: the run that did it.
            expected: the version the alias must hold now, None where it must not exist yet, `ANY` for either.
            kind: `promote` where gates were asked first.
            forced: whether it moves although a gate failed.
            loosened: what of the gates' bounds asked for less than usual, in words.
            gates: what was checked, each as a row of a table.

        Returns:
            the move as the history keeps it; None where the alias held the version already

        Raises:
            InputError: the version does not exist, or the alias does not hold what was expected (any more); of
                several callers with one expectation exactly one gets through.
        """
        check_name(alias, "alias")
        self._require(model, version)
        said: dict[str, Any] = {"by": by, "reason": reason, "run_id": run_id, "kind": kind, "forced": forced}
        said |= {"gates": gates, "loosened": list(loosened)}
        return self._move(model, alias, lambda history: version, expected, said)

    def rollback(
        self,
        model: str,
        alias: str,
        *,
        by: str | None = None,
        reason: str | None = None,
        run_id: str | None = None,
        expected: Any = ANY,
    ) -> AliasChange:
        """Gives an alias back to the version that held it before the present one, see `standing`.

        Args:
            model: the model.
            alias: an alias of it.
            by: who asked for it.
            reason: why.
            run_id: the run that did it.
            expected: the version that is to go, `ANY` for whichever holds the alias.

        Returns:
            the move as the history keeps it

        Raises:
            InputError: there is no such alias, nothing stood before, or the alias does not hold what was expected.
        """
        said = {"by": by, "reason": reason, "run_id": run_id, "kind": "rollback"}
        change = self._move(model, alias, lambda history: self._before(model, alias, history), expected, said)
        if change is None:
            raise StorageError(f'The history of "{model}@{alias}" is damaged: set the alias to the right version.')
        return change

    def before(self, model: str, alias: str) -> str:
        """The version that a rollback of the alias would give it to; raises InputError as `rollback` does."""
        return self._before(model, alias, self.history(model, alias))

    def _before(self, model: str, alias: str, history: Sequence[AliasChange]) -> str:
        if not history:
            raise self._unknown(model, "alias", alias, list(self.aliases(model)))
        versions = standing(history)
        if len(versions) < 2:
            raise InputError(
                f'"{model}@{alias}" cannot be rolled back: no version held it before {history[-1].version}; '
                "promote another one to it instead."
            )
        self._require(model, versions[-2])
        return versions[-2]

    def _require(self, model: str, version: str) -> None:
        existing = self._version_names(model)
        if version not in existing:
            raise self._unknown(model, "version", version, existing)

    def _move(
        self,
        model: str,
        alias: str,
        choose: Callable[[list[AliasChange]], str],
        expected: Any,
        said: Mapping[str, Any],
    ) -> AliasChange | None:
        """Moves the alias to what `choose` makes of its history; again, as long as somebody else is faster."""
        while True:
            current, history = self._held(model, alias)
            if expected is not ANY and current != expected:
                raise InputError(
                    f'The alias "{model}@{alias}" was not moved: it holds {current or "nothing"} now, not '
                    f"{expected or 'nothing'}; look at what changed, then try again."
                )
            version = choose(history)
            if current == version:
                return None
            change = AliasChange.model_validate({"version": version, "previous": current, "at": _now(), **said})
            if self._swap(model, alias, change, len(history)):
                return change

    def _held(self, model: str, alias: str) -> tuple[str | None, list[AliasChange]]:
        """The version that the alias holds, and its history."""
        found = self._aliases.find_one({"_id": f"{model}@{alias}"}) or {"version": None, "history": []}
        what = f'the history of "{model}@{alias}"'
        return found["version"], [_parse(AliasChange, change, what) for change in found["history"]]

    def _swap(self, model: str, alias: str, change: AliasChange, moves: int) -> bool:
        """Applies `change` if the alias was moved no further than `moves` times; False when somebody was faster."""
        key, entry = f"{model}@{alias}", change.model_dump()
        if change.previous is None:
            first = {"_id": key, "model": model, "alias": alias, "version": change.version, "history": [entry]}
            try:
                self._aliases.insert_one(first)
            except DuplicateKeyError:
                return False
            return True
        update = {"$set": {"version": change.version}, "$push": {"history": entry}}
        # By its moves too: the same version may hold it again, but with others before it.
        unmoved = {"_id": key, "version": change.previous, "history": {"$size": moves}}
        return self._aliases.find_one_and_update(unmoved, update) is not None

    def _version_names(self, model: str) -> list[str]:
        """The versions of a model, newest first (a version's name begins with its time)."""
        return sorted(
            (found["version"] for found in self._versions.find({"model": model}, {"version": 1})), reverse=True
        )

    def _unknown(self, model: str, what: str, name: str, existing: list[str]) -> InputError:
        """The error for a model, or a version or alias of it, that does not exist."""
        models = self.models()
        if not models:
            return InputError(f'There is no model "{model}": none is registered yet, so train one first.')
        if model not in models:
            return InputError(f'There is no model "{model}"{_nearest(model, models)}; there is: {_some(models)}.')
        known = f"it has: {_some(existing)}" if existing else "it has none yet"
        if what == "alias":
            known += f"; its versions: {_some(self._version_names(model))}"
        return InputError(f'The model "{model}" has no {what} "{name}"{_nearest(name, existing)}; {known}.')


def _now() -> datetime:
    return _utc(datetime.now(UTC))


def _nearest(name: str, existing: list[str]) -> str:
    near = difflib.get_close_matches(name, existing, n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def _some(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _parse(kind: type[Record], found: Mapping[str, Any], what: str) -> Record:
    """A document of the database as `kind`; StorageError when it is none."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise StorageError(
            f"The registry's record of {what} cannot be read ({where}: {problem['msg']}): it was damaged, or written "
            "by another program; restore it from a backup of the database or use another version."
        ) from None
