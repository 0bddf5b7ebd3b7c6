"""POLL in Python: the rules of `plugins/examples/poll`, with the same verdicts and answers.

A plugin is a module with the classes `Handler` and `Query`; `wit_world` is made from the contract by componentize-py. What holds for every plugin holds
here: no clock, no randomness, no network (a call ends in a trap), and every "latest" by (time, item hash).
"""

import json
import re
import struct

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import query
from wit_world.imports import crypto, types, view

MAX_CHARS = 200
MAX_OPTIONS = 50
UNKNOWN_POLL, NO_POLL, NO_OPTION = 600, 601, 602
PERMISSION_DENIED = 2

# Rows of one question to the node, votes counted for an answer, polls passed over before a page, polls of a page.
PAGE, MAX_VOTES, MAX_SKIPPED, MAX_PAGE = 1000, 50_000, 10_000, 200

FIELDS = {
    "create": {"address", "time", "action", "question", "options"},
    "vote": {"address", "time", "action", "poll", "option"},
    "close": {"address", "time", "action", "poll"},
}
STRING = re.compile(rb'"(?:\\.|[^"\\])*"', re.DOTALL)
ITEM_HASH = re.compile(r"[0-9a-f]{64}|Qm[1-9A-HJ-NP-Za-km-z]{42,44}|bafy[a-z2-7]{55}")


# --- what a message says


def rejection(code: int, sentence: str) -> types.Rejection:
    return types.Rejection(code, [json.dumps(sentence)])


def require(condition: bool, sentence: str) -> None:
    if not condition:
        raise Err(rejection(0, sentence))


def text(value, name: str) -> str:
    require(isinstance(value, str) and len(value) <= MAX_CHARS, f"{name}: a text of at most {MAX_CHARS} characters was expected")
    return value


def parse(message: types.Message) -> dict:
    """The content of a message; raises `Err` with a rejection (code 0) for whatever is not of this type's form."""
    bare = STRING.sub(b"", message.content)
    # One object with one list at most: whoever nests deeper would only be testing the stack.
    require(bare.count(b"{") == 1 and bare.count(b"[") <= 1, "the content is nested")
    content = json.loads(message.content)
    fields = FIELDS.get(content.get("action")) if isinstance(content.get("action"), str) else None
    require(fields is not None, "action: `create`, `vote` or `close` was expected")
    require(set(content) == fields, f"the fields of this action are {', '.join(sorted(fields))}")
    if content["action"] == "create":
        text(content["question"], "question")
        options = content["options"]
        require(isinstance(options, list) and 2 <= len(options) <= MAX_OPTIONS, f"options: 2 to {MAX_OPTIONS} were expected")
        for option in options:
            text(option, "options")
    else:
        poll = content["poll"]
        require(isinstance(poll, str) and ITEM_HASH.fullmatch(poll) is not None, "poll: an item hash was expected")
    if content["action"] == "vote":
        option = content["option"]
        require(type(option) is int and 0 <= option < MAX_OPTIONS, "option: the number of an option was expected")
    return content


# --- where things are in the state; every message has rows of its own


def moment(message: types.Message) -> bytes:
    """Sorts as (time, item hash) does."""
    return struct.pack(">d", message.time) + message.item_hash.encode()


def read_moment(key: bytes) -> tuple[float, str]:
    return struct.unpack(">d", key[:8])[0], key[8:].decode()


def poll_key(poll: str) -> bytes:
    return b"p" + poll.encode()


def closes_of(poll: str) -> bytes:
    return b"c" + poll.encode() + b"\0"


def votes_on(poll: str) -> bytes:
    return b"v" + poll.encode() + b"\0"


def voter(address: str) -> bytes:
    """One address is one voter, however it is spelled. Its length is the stranger's choice, that of a key is not."""
    lower = "".join(letter.lower() if letter.isascii() else letter for letter in address).encode()
    return (lower if len(lower) <= 96 and not lower.startswith(b"\1") else b"\1" + digest(lower)) + b"\0"


def digest(data: bytes) -> bytes:
    return crypto.hash(crypto.Digest.SHA256, data).hex().encode()


def rows_of(message: types.Message, content: dict) -> list[tuple[bytes, bytes]]:
    at = moment(message)
    if content["action"] == "vote":
        return [(votes_on(content["poll"]) + voter(message.address) + at, bytes([content["option"]]))]
    if content["action"] == "close":
        return [(closes_of(content["poll"]) + at, b"")]
    record = [message.time, message.item_hash, message.address, content["question"], content["options"]]
    return [(poll_key(message.item_hash), json.dumps(record).encode()), (b"l" + at, b"")]


def count() -> int:
    return int(view.get(b"n") or b"0")


def count_row(difference: int) -> types.Write:
    number = count() + difference
    return types.Write(b"n", str(number).encode() if number else None)


def rows(prefix: bytes, reverse: bool = False):
    """The rows of a prefix, page by page as they are asked for."""
    start, end = prefix, prefix[:-1] + bytes([prefix[-1] + 1])
    while True:
        page = view.scan(start, end, PAGE, reverse)
        yield from page.items
        if not page.more:
            return
        last = page.items[-1][0]
        start, end = (start, last) if reverse else (last + b"\0", end)


# --- the rules


def find(poll: str, message: types.Message) -> tuple[str, int] | types.Outcome:
    """Owner and number of options of a poll; else what becomes of the message that names it."""
    found = view.message(poll)
    if found is None:
        otherwise = rejection(UNKNOWN_POLL, f"there is no poll {poll}")
        return types.Outcome_Waiting(types.Wait([types.Need_Message(poll)], otherwise))
    try:
        content = parse(found.message) if found.message.kind == message.kind else {}
    except Err:
        content = {}
    if content.get("action") != "create":
        return types.Outcome_Rejected(rejection(NO_POLL, f"{poll} is no poll"))
    return found.message.address, len(content["options"])


class Handler(exports.Handler):
    def validate(self, msg: types.Message) -> types.Plan:
        parse(msg)
        return types.Plan([types.Subject_ThisMessage()], [])

    def process(self, msg: types.Message) -> types.Outcome:
        try:
            content = parse(msg)
        except Err as refused:
            return types.Outcome_Rejected(refused.value)
        follows = None
        if content["action"] != "create":
            found = find(content["poll"], msg)
            if not isinstance(found, tuple):
                return found
            owner, options = found
            if content["action"] == "vote" and content["option"] >= options:
                return types.Outcome_Rejected(rejection(NO_OPTION, f"the poll {content['poll']} has {options} options"))
            if content["action"] == "close":
                if voter(owner) != voter(msg.address):
                    sentence = f"{owner} alone closes the poll {content['poll']}"
                    return types.Outcome_Rejected(rejection(PERMISSION_DENIED, sentence))
                follows = content["poll"]
        writes = [types.Write(key, value) for key, value in rows_of(msg, content)]
        if content["action"] == "create":
            writes.append(count_row(1))
        return types.Outcome_Accepted(types.Effects(writes, [], None, None, None, [], [], [], follows, []))

    def withdraw(self, msg: types.Message, why: types.Withdrawal) -> list[types.Write]:
        content = parse(msg)
        rows = rows_of(msg, content)
        if content["action"] == "create":
            # One that is hidden is gone already when it turns out to be void.
            if view.get(poll_key(msg.item_hash)) is None:
                return []
            return [types.Write(key, None) for key, _ in rows] + [count_row(-1)]
        writes = [types.Write(key, None) for key, _ in rows]
        return writes

    def price(self, msg: types.Message) -> types.Costs | None:
        return None


# --- what people ask


class Refused(Exception):
    """An answer that is an error: status and sentence."""


def closed(poll: str) -> tuple[float, str] | None:
    prefix = closes_of(poll)
    return next((read_moment(key[len(prefix):]) for key, _ in rows(prefix)), None)


def record_of(poll: str) -> list:
    record = view.get(poll_key(poll)) if ITEM_HASH.fullmatch(poll) else None
    if record is None:
        raise Refused(404, "no such poll")
    return json.loads(record)


def head(record: list, end: tuple[float, str] | None) -> dict:
    time, item_hash, address, question, options = record
    return {"address": address, "closed": end and end[0], "item_hash": item_hash, "options": options, "question": question, "time": time}


def votes_in_time(poll: str, of: bytes, end: tuple[float, str] | None, reverse: bool = False):
    """Voter, moment and option of the votes that came before the close, all or those of one voter; in the order of voters, then of moments."""
    start = len(votes_on(poll))
    for key, value in rows(votes_on(poll) + of, reverse):
        after = key.index(b"\0", start) + 1
        who, at = key[start:after], read_moment(key[after:])
        if end is None or at < end:
            yield who, at, value[0]


def number(parameters: dict, name: str, default: int) -> int:
    value = parameters.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", value):
        raise Refused(422, f"{name}: a whole number was expected")
    return int(value)


def listing(parameters: dict) -> dict:
    page, asked = number(parameters, "page", 1), number(parameters, "pagination", 20)
    length = min(asked or MAX_PAGE, MAX_PAGE)
    order = parameters.get("sortOrder", parameters.get("sort_order", "-1"))
    if page == 0 or order not in ("1", "-1"):
        raise Refused(422, "page: pages are counted from 1; sortOrder: 1 or -1 was expected")
    skipped = (page - 1) * length
    if skipped > MAX_SKIPPED:
        raise Refused(422, "page: too far in")
    polls = []
    for place, (key, _) in enumerate(rows(b"l", reverse=order == "-1")):
        if place >= skipped + length:
            break
        if place >= skipped:
            poll = key[9:].decode()
            polls.append(head(record_of(poll), closed(poll)))
    return {"polls": polls, "pagination_page": page, "pagination_total": count(), "pagination_per_page": length, "pagination_item": "polls"}


def results(poll: str) -> dict:
    record, end = record_of(poll), closed(poll)
    latest, examined = {}, 0
    for who, _, option in votes_in_time(poll, b"", end):
        examined += 1
        if examined > MAX_VOTES:
            raise Refused(422, "this poll has more votes than are counted for an answer")
        latest[who] = option
    counts = [0] * len(record[4])
    for option in latest.values():
        counts[option] += 1
    body = head(record, end)
    body["results"] = [{"option": option, "votes": votes} for option, votes in zip(record[4], counts)]
    body["votes"] = sum(counts)
    return dict(sorted(body.items()))


def vote_of(poll: str, address: str) -> dict:
    record = record_of(poll)
    for _, (time, item_hash), option in votes_in_time(poll, voter(address), closed(poll), reverse=True):
        return {"address": address, "item_hash": item_hash, "option": option, "poll": poll, "text": record[4][option], "time": time}
    raise Refused(404, "no vote of this address counts")


class Query(exports.Query):
    def run(self, req: query.Request) -> query.Response:
        path, parameters = dict(req.path), dict(reversed(req.parameters))
        try:
            if req.route == "/api/v0/polls":
                status, body = 200, listing(parameters)
            elif req.route == "/api/v0/polls/{poll}":
                status, body = 200, results(path["poll"])
            else:
                status, body = 200, vote_of(path["poll"], path["address"])
        except Refused as refused:
            status, body = refused.args[0], {"error": refused.args[1]}
        return query.Response(status, "application/json", json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
