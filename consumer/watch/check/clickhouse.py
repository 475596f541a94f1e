"""ClickHouse: does it answer, are the migrations applied as they are here, do the tables take the sink's rows?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pyarrow as pa
import urllib3
from clickhouse_connect.driver.client import Client

from consumer.errors import BnplError, Retryable
from consumer.services.clickhouse import address_of, connect, errors_named
from consumer.services.economics import recorded
from consumer.services.migrate import ledger
from consumer.services.rows import OUTCOMES, SCORES, Table
from consumer.settings import Settings
from consumer.stack.endpoint import endpoint
from consumer.watch.check.finding import Finding, Findings, Stopped, fault, ok, stopping, warning

VIEW = "shadow_predictions"
VIEW_COLUMNS = {
    "transaction_id": "String",
    "timestamp": "DateTime64(3, 'UTC')",
    "business_decision": "String",
    "business_risk_score": "Float64",
    "ridge_prediction": "Nullable(Float64)",
    "logistic_prediction": "Nullable(Float64)",
    "elastic_prediction": "Nullable(Float64)",
    "ensemble_prediction": "Nullable(Float64)",
    "consensus_prediction": "Nullable(Float64)",
    "actual_default": "Nullable(Bool)",
    "days_to_resolution": "Nullable(Int32)",
    "opportunity_cost": "Nullable(Float64)",
}
"""What readers of the view are promised, names and types; it may have more."""

_REQUEST_SECONDS = 4
_PING_SECONDS = 1.0
_SKEW_SECONDS = 2.0
_MIGRATE = "run `bnpl-shadow migrate`"
_NEW_MIGRATION = "put the column right by a new file in deploy/clickhouse, and run `bnpl-shadow migrate`"
_UNKNOWN_DATABASE = 81
_AUTHENTICATION_FAILED = 516


def check_clickhouse(settings: Settings, *, view: bool = True, now: Callable[[], float] = time.time) -> Findings:
    """The server, its tables, and its clock against `now` (seconds since 1970); `view` adds what only readers need."""
    impatient = min(settings.clickhouse_timeout_seconds, _REQUEST_SECONDS)
    settings = settings.model_copy(update={"clickhouse_timeout_seconds": impatient})
    with _connected(settings) as client, stopping("clickhouse"), errors_named():
        yield ok("clickhouse", f"answers at {place(settings)}: version {client.server_version}")
        yield from _migrations(client, settings)
        for table in (SCORES, OUTCOMES):
            yield from _table(client, table)
        if view:
            yield from _view(client)
            yield from _economics(client, settings)
        yield from _clock(client, settings, now)


def place(settings: Settings) -> str:
    """Host, port and database, without user and password."""
    parts = urlsplit(address_of(settings))
    port = parts.port or (8443 if parts.scheme == "https" else 8123)
    return endpoint(parts.hostname or "", port) + parts.path


def _connected(settings: Settings) -> Client:
    with stopping("clickhouse"):
        address_of(settings)
    try:
        return connect(settings)
    except BnplError as error:
        raise Stopped(_not_connected(settings, error)) from error


def _not_connected(settings: Settings, error: BnplError) -> Finding:
    where, code = place(settings), getattr(error.__cause__, "code", None)
    mend = "mend BNPL_CLICKHOUSE_URL"
    if code == _UNKNOWN_DATABASE:
        return fault("clickhouse", f"ClickHouse at {where} has no such database", f"create it, or {mend}")
    if code == _AUTHENTICATION_FAILED:
        return fault("clickhouse", f"ClickHouse at {where} refuses user or password", mend)
    if not isinstance(error, Retryable):
        return fault("clickhouse", f"{error} at {where}", mend)
    if other := _other_server(settings):
        return fault("clickhouse", f"what answers at {where} is not ClickHouse: {other}", mend)
    remedy = "start it (`bnpl-shadow up` for the local one), or set BNPL_CLICKHOUSE_URL"
    return fault("clickhouse", f"{error} at {where}", remedy, passing=True)


def _other_server(settings: Settings) -> str | None:
    """What a server says that is not ClickHouse's; None when nothing, or ClickHouse, answers."""
    parts = urlsplit(address_of(settings))
    url = f"{parts.scheme}://{place(settings).partition('/')[0]}/ping"
    try:
        answer = urllib3.request("GET", url, timeout=_PING_SECONDS, retries=False)
    except urllib3.exceptions.ProtocolError:
        return "it does not speak HTTP"
    except urllib3.exceptions.HTTPError:
        return None
    busy = answer.status >= 500  # a proxy before a server that is away
    return None if answer.data == b"Ok.\n" or busy else f"its /ping says {answer.status}"


def _migrations(client: Client, settings: Settings) -> Findings:
    found = ledger(client, settings.migrations_dir)
    for each in found.changed:
        remedy = "take the file back as it was, put the change into a new one, and run `bnpl-shadow migrate`"
        yield fault("clickhouse", f"migration {each.name} was changed after it was applied", remedy)
    if found.pending:
        yield fault("clickhouse", f"not applied: {', '.join(each.name for each in found.pending)}", _MIGRATE)
    if found.unknown:
        what = f"a newer version applied migrations that are not here: {', '.join(map(str, found.unknown))}"
        yield warning("clickhouse", what, "run that version, or make sure that this one still fits")
    if not (found.changed or found.pending):
        yield ok("clickhouse", f"{len(found.applied)} migrations applied, unchanged")


def _table(client: Client, table: Table) -> Findings:
    asked = {"table": table.name}
    tables = client.query(
        "SELECT engine, engine_full, sorting_key FROM system.tables "
        "WHERE database = currentDatabase() AND name = {table:String}",
        asked,
    ).result_rows
    if not tables:
        yield fault("clickhouse", f"there is no table {table.name}", _MIGRATE)
        return
    columns = client.query(
        "SELECT name, type, default_kind FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String}",
        asked,
    ).result_rows
    findings = [*_engine(table, *tables[0]), *_columns(table, {name: kind for name, kind, _ in columns})]
    names = set(table.schema.names)
    idle = [name for name, _, default in columns if name not in names and not default]
    if idle:
        what = f"{table.name} has columns that the sink does not fill: {', '.join(idle)}"
        findings.append(warning("clickhouse", what, "give them a DEFAULT, or run the version that fills them"))
    yield from findings
    if not findings:
        yield ok("clickhouse", f"{table.name}: {len(columns)} columns, as the sink inserts them; {tables[0][0]}")


def _engine(table: Table, engine: str, definition: str, sorting_key: str) -> Findings:
    version, key = table.place[1], ", ".join(table.key)
    remedy = "make the table anew by `bnpl-shadow migrate` in an empty database, and read the topic again"
    if engine == "Distributed":
        what = f"{table.name} is Distributed: the tables behind it are not looked at"
        yield warning("clickhouse", what, "run this check against each of them")
    elif not engine.endswith("ReplacingMergeTree") or version not in definition.partition(" ")[0]:
        what = f"{table.name} is {engine}, not ReplacingMergeTree({version}): a row inserted again would stay twice"
        yield fault("clickhouse", what, remedy)
    elif sorting_key != key:
        what = f"{table.name} is ordered by ({sorting_key}), not ({key}): other rows would replace each other"
        yield fault("clickhouse", what, remedy)


def _columns(table: Table, found: Mapping[str, str]) -> Findings:
    for each in table.schema:
        wants = clickhouse_type(each)
        if each.name not in found:
            yield fault("clickhouse", f"{table.name} has no column {each.name} ({wants})", _NEW_MIGRATION)
        elif plain(found[each.name]) != wants:
            what = f"{table.name}.{each.name} is {found[each.name]}, the sink inserts {wants}"
            yield fault("clickhouse", what, _NEW_MIGRATION)


def _view(client: Client) -> Findings:
    try:
        with errors_named():
            answer = client.query("SELECT * FROM shadow_predictions LIMIT 0")
    except Retryable:
        raise
    except BnplError:
        yield fault("clickhouse", f"the view {VIEW} is missing or cannot be read", _MIGRATE)
        return
    found = {name: plain(kind.name) for name, kind in zip(answer.column_names, answer.column_types, strict=True)}
    wrong = [f"{name} ({kind})" for name, kind in VIEW_COLUMNS.items() if found.get(name) != kind]
    if wrong:
        what = f"the view {VIEW} lacks columns, or has others, than readers are promised: {', '.join(wrong)}"
        yield fault("clickhouse", what, "bring the view back by a new file in deploy/clickhouse")
    else:
        yield ok("clickhouse", f"{VIEW}: {len(found)} columns, the {len(VIEW_COLUMNS)} promised ones among them")


def _economics(client: Client, settings: Settings) -> Findings:
    try:
        reckoned = recorded(client)
    except Retryable:
        raise
    except BnplError:
        yield fault("clickhouse", "the table economics is missing or cannot be read", _MIGRATE)
        return
    if reckoned != (settings.margin, settings.loss_given_default):
        what = f"{VIEW} reckons with another margin or loss given default than is set: {reckoned}"
        yield warning("clickhouse", what, _MIGRATE)


def clickhouse_type(column: pa.Field) -> str:
    """The type of a column that takes an Arrow field, as `plain` gives it."""
    kind = column.type
    if pa.types.is_list(kind):
        return f"Array({clickhouse_type(kind.value_field)})"
    name = _TYPES[kind]
    return f"Nullable({name})" if column.nullable else name


_TYPES = {
    pa.string(): "String",
    pa.bool_(): "Bool",
    pa.int64(): "Int64",
    pa.float64(): "Float64",
    pa.timestamp("ms", "UTC"): "DateTime64(3, 'UTC')",
}


def plain(kind: str) -> str:
    """A ClickHouse type without LowCardinality, which is only a way to keep it."""
    head, bracket, inside = kind.partition("(")
    if not bracket or head.startswith("DateTime"):
        return kind
    inner = plain(inside[:-1])
    return inner if head == "LowCardinality" else f"{head}({inner})"


def _clock(client: Client, settings: Settings, now: Callable[[], float]) -> Findings:
    before = now()
    theirs = int(client.query("SELECT toUnixTimestamp64Milli(now64(3))").result_rows[0][0]) / 1000
    after = now()
    skew = theirs - before if theirs < before else max(0.0, theirs - after)
    if abs(skew) < _SKEW_SECONDS:
        yield ok("clocks", f"ClickHouse's clock and this machine's agree within {abs(skew) + after - before:.3f} s")
        return
    what = f"ClickHouse's clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    remedy = "let both follow one time server"
    if abs(skew) > settings.event_max_future_seconds:
        what += f", more than the {settings.event_max_future_seconds} s that a transaction may be ahead"
        yield fault("clocks", what, remedy, passing=True)
    else:
        yield warning("clocks", what, remedy)
