"""Settings: everything an operator may change, read once from the environment by the composition roots.

Environment variables flow in, one frozen `Settings` flows out. It always holds that every `HEADRACE_*` variable was
understood: an unknown or malformed one stops start-up with a `SettingsError` that names it.
"""

import difflib
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "HEADRACE_"
LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
# Both become parts of topic names, group ids and folder names: Kafka allows no other characters there.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
_BASE_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?/?")
SnapshotName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$")]
ServerAddress = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
#: A setting of this type may be given as a file: `X_FILE` names one whose text is X, but for line ends behind it.
Secret = Annotated[SecretStr, Field(min_length=1)]
FILE_SUFFIX = "_FILE"


def _base_url(text: str) -> str:
    try:
        plain = _BASE_URL.fullmatch(text) and urlsplit(text).port != 0
    except ValueError:  # no port, or no address in the brackets
        plain = False
    if not plain:
        raise ValueError("must be http://HOST:PORT, or https, without a path")
    return text.rstrip("/")


Url = Annotated[ServerAddress, AfterValidator(_base_url)]


class SettingsError(ValueError):
    """A variable of the environment is unknown or malformed; the message names it and what is expected."""


class Settings(BaseSettings):
    """One worker's settings; the variable of a field is `HEADRACE_` and its name in capitals.

    `Settings()` reads the environment; a value given as argument wins. `KAFKA_BOOTSTRAP_SERVERS`, `REDIS_URL` and
    `MLFLOW_TRACKING_URI` carry no prefix, as other tools read them too. An empty variable counts as not set. What is secret is
    a `Secret`, which may come from a file and is shown nowhere.

    Raises
    ------
    SettingsError
        Names each unknown or malformed variable, with what was expected.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    app: Name = Field("headrace", description="first part of the names of the group, the changelogs and the stores")
    version: Name = Field(
        "v1", description="second part of these names; set, it keeps a worker to that version, whatever is active"
    )
    partitions: int = Field(4, ge=1, le=256, description="of every topic; fixed for a version")
    home: Path = Field(Path(".headrace"), description="state, broker data and logs")
    data: Path | None = Field(None, description="folder of the data sets that the demo replays")
    role: Literal["all", "learn", "serve"] = Field(
        "all", description="learn: no clients are answered; serve: no shard is owned, lists are made from copies of all"
    )
    standby: bool = Field(False, description="keep copies of the shards that other workers own, to take over from")
    kafka_bootstrap_servers: ServerAddress | None = Field(
        None, validation_alias="KAFKA_BOOTSTRAP_SERVERS", description="brokers to use; without them, the embedded one"
    )
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="as the listener is that the brokers' addresses name"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="of SASL, where it is used"
    )
    kafka_username: str | None = Field(None, min_length=1, description="of SASL")
    kafka_password: Secret | None = Field(None, description="of SASL")
    kafka_ca_file: Path | None = Field(None, description="PEM; without it, whom the system trusts")
    kafka_cert_file: Path | None = Field(None, description="PEM, of the client, where brokers ask for it")
    kafka_key_file: Path | None = Field(None, description="PEM, of the client's certificate, not encrypted")
    redis_url: Secret | None = Field(
        None,
        validation_alias="REDIS_URL",
        description="where workers keep each user's last list for a day; it may be slow, full, away or absent",
    )
    redis_password: Secret | None = Field(None, description="where it is not in REDIS_URL")
    redis_ca_file: Path | None = Field(None, description="PEM, for rediss://; without it, whom the system trusts")
    source_url: Secret | None = Field(
        None, description="database that `headrace pull` reads, where the command line does not have it"
    )
    source_token: Secret | None = Field(None, description="that `headrace pull feed` shows to the feed")
    snapshots: ServerAddress | None = Field(
        None, description="folder or fsspec URL of snapshots; where it is not set, `snapshots` in `home`"
    )
    lake: ServerAddress | None = Field(
        None, description="folder or fsspec URL of the lake; where it is not set, `lake` in `home`"
    )
    start_from: SnapshotName | None = Field(
        None, description="a snapshot's name, `promoted` or `latest`: what an empty store is filled from"
    )
    mlflow_tracking_uri: ServerAddress | None = Field(
        None, validation_alias="MLFLOW_TRACKING_URI", description="who is told of snapshots; needs the extra mlflow"
    )
    web_host: str = Field("127.0.0.1", min_length=1, description="address to answer at")
    web_port: int = Field(6066, ge=1, le=65535, description="port to answer at")
    advertised_url: Url | None = Field(
        None, description="by which other workers reach this one; web_host and web_port if not set"
    )
    api_keys: Path | None = Field(
        None, description="JSON file of API keys; without one, web_host must be a loopback address"
    )
    api_key: Secret | None = Field(None, description="that commands show to a worker which asks for one")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="what needs the scope admin is answered there, and not at web_port"
    )
    metrics_host: str | None = Field(None, min_length=1, description="of metrics_port; without it, web_host")
    metrics_open: bool = Field(False, description="whether metrics can be read without a key")
    cors_origins: str = Field("", description="of web pages that may ask, separated by commas; * only with keys")
    rate_limit: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="requests a second of one client; 16 KB of events count as one; 0: any number",
    )
    max_connections: int = Field(
        2_000, ge=1, le=100_000, description="open HTTP connections; one more closes the one that is idle the longest"
    )
    access_log: Literal["off", "errors", "all"] = Field(
        "errors", description="which requests are logged; errors: 5xx, and answers over a second; never ids"
    )
    checkpoint_interval_ms: int = Field(250, ge=10, le=5_000, description="how often each shard commits")
    positives_per_day: float = Field(
        5000.0,
        gt=0,
        allow_inf_nan=False,
        description="expected likes and long watches a day; turns the models' half-lives into time",
    )
    seed: int = Field(1, ge=0, lt=2**63, description="of first vectors and negatives")
    signals: Path | None = Field(None, description="JSON file of what events say about taste")
    scenarios: Path | None = Field(None, description="JSON file of named presets of list requests")
    experiment: Path | None = Field(None, description="JSON file of the arms that users are dealt out to")
    objective: str = Field(
        "choice=1",
        min_length=1,
        description="what lists are ordered by: weights of log-odds, such as choice=1,like=0.5,skip=-0.5",
    )
    exploration: float = Field(
        0.05,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of lists whose last place goes to a video that few have played",
    )
    max_users: int = Field(1_000_000, ge=1, description="in memory; the rest are read from disk when they come back")
    max_videos: int = Field(200_000, ge=1, description="in memory; events of more are dead letters")
    user_ttl_days: int | None = Field(
        None, ge=1, le=36_500, description="of event time without an event, after which a user is forgotten; never"
    )
    video_ttl_days: int | None = Field(
        None, ge=1, le=36_500, description="likewise of a video that is not described again either; never"
    )
    future_tolerance_s: float = Field(
        600, ge=0, allow_inf_nan=False, description="how far at_ms may be ahead of the record's arrival"
    )
    scoring_share: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="of its CPU time, for measuring its lists while it runs; 1: every positive",
    )
    log_format: LogFormat = Field("console", description="of logs, which go to stderr")
    log_level: LogLevel = Field("info", description="the least that is logged")

    def __init__(self, **values: Any) -> None:
        problems = unknown_variables(os.environ)
        try:
            super().__init__(**{**_from_files(problems), **values})
        except ValidationError as error:
            problems += [_malformed(dict(detail)) for detail in error.errors()]
        if problems:
            raise SettingsError("; ".join(problems))

    @property
    def admin_host(self) -> str:
        """Address that `metrics_port` is listened on at."""
        return self.metrics_host or self.web_host

    @property
    def version_is_set(self) -> bool:
        """Whether the version was given, so that whichever is active does not matter."""
        return "version" in self.model_fields_set

    @property
    def group(self) -> str:
        """Consumer group, prefix of transactional ids and of the topics that belong to this version."""
        return f"{self.app}.{self.version}"

    @property
    def peer_url(self) -> str:
        """Where other workers reach this one; where it listens on all addresses, by this machine's name."""
        if self.advertised_url is not None:
            return self.advertised_url
        host = socket.gethostname() if self.web_host in ("0.0.0.0", "::") else self.web_host  # noqa: S104 - compared
        return f"http://[{host}]:{self.web_port}" if ":" in host else f"http://{host}:{self.web_port}"

    @property
    def state_dir(self) -> Path:
        """Folder of this version's stores; safe to delete, it is rebuilt from the topics."""
        return self.home / "state" / self.version

    @property
    def snapshots_url(self) -> str:
        """Where snapshots are kept."""
        return self.snapshots or str(self.home / "snapshots")

    @property
    def lake_url(self) -> str:
        """Where the lake is."""
        return self.lake or str(self.home / "lake")


def variable_of(field: str) -> str:
    """Name of the environment variable that sets `field`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def unknown_variables(names: Iterable[str]) -> list[str]:
    """One complaint for each of `names` that has our prefix and sets nothing, in alphabetical order."""
    known = [variable_of(field) for field in Settings.model_fields]
    known += [variable_of(field) + FILE_SUFFIX for field in SECRETS]
    complaints = []
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            complaints.append(f"{name} is not a setting" + (f", did you mean {near[0]}?" if near else ""))
    return complaints


#: Fields that hold what nobody may read.
SECRETS = tuple(name for name, field in Settings.model_fields.items() if Secret in get_args(field.annotation))


def _from_files(problems: list[str]) -> dict[str, str]:
    """Secrets that are given as files, by field; what is wrong is added to `problems`."""
    values = {}
    for field in SECRETS:
        variable = variable_of(field)
        path = os.environ.get(variable + FILE_SUFFIX)
        if not path:
            continue
        if os.environ.get(variable):
            problems.append(f"{variable} and {variable + FILE_SUFFIX} are both set: unset one")
            continue
        try:
            values[field] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            problems.append(f"{variable + FILE_SUFFIX}={path!r}: {why}")
    return values


def _malformed(detail: dict[str, Any]) -> str:
    field = next((name for name in Settings.model_fields if detail["loc"][0] in (name, variable_of(name))), None)
    if field in SECRETS:
        return f"{variable_of(str(field))}: {detail['msg']}"
    variable = str(detail["loc"][0]) if field is None else variable_of(field)
    return f"{variable}={detail['input']!r}: {detail['msg']}"
