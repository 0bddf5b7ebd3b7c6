"""A user of the network with nothing but the official Python SDK. One command a call, JSON on stdout.

    user.py new-account
    user.py --ccn URL --key HEX upload FILE [--payment credit|hold]
    user.py --ccn URL --key HEX publish --code HASH --runtime HASH --entrypoint TEXT [options]
    user.py --ccn URL --key HEX wait HASH
    user.py --ccn URL --key HEX post TYPE JSON [--channel NAME]
    user.py --ccn URL --key HEX aggregate KEY JSON
    user.py --ccn URL --key HEX balance
    user.py --ccn URL --key HEX messages [--type TYPE]
    user.py websocket URL TEXT...
    user.py listen URL COUNT
    user.py session

A session saves starting Python for each command: it reads commands as JSON lists of words, one a line, and
answers each with a line, {"answer": …} or {"error": …}.
"""

import argparse
import asyncio
import json
import secrets
import sys
import traceback

from aleph.sdk.chains.ethereum import ETHAccount
from aleph.sdk.client import AuthenticatedAlephHttpClient
from aleph.sdk.query.filters import MessageFilter
from aleph_message.models import Chain, MessageType, Payment, PaymentType
from aleph_message.models.execution.base import Encoding


def payment(kind: str) -> Payment:
    return Payment(chain=Chain.ETH, type=PaymentType(kind), receiver=None)


def report(message, status) -> dict:
    return {
        "item_hash": str(message.item_hash),
        "status": status.value,
        "content": json.loads(message.item_content) if message.item_content else None,
    }


async def echo(arguments) -> dict:
    """Sends each text and collects what comes back, then a message of bytes."""
    from websockets.asyncio.client import connect

    async with connect(arguments.url, open_timeout=600, close_timeout=30, max_size=8 << 20) as socket:
        answers = []
        for text in arguments.texts:
            await socket.send(text)
            answers.append(await socket.recv())
        await socket.send(bytes(range(256)) * 64)
        answers.append((await socket.recv()).hex())
    return {"answers": answers, "close_code": socket.close_code}


async def listen(arguments) -> dict:
    """Collects messages as they are published."""
    from websockets.asyncio.client import connect

    async with connect(arguments.url, open_timeout=60, max_size=8 << 20) as socket:
        return {"messages": [json.loads(await socket.recv()) for _ in range(arguments.count)]}


async def run(arguments) -> dict:
    if arguments.command == "new-account":
        key = secrets.token_bytes(32)
        return {"private_key": key.hex(), "address": ETHAccount(key).get_address()}
    if arguments.command == "websocket":
        return await echo(arguments)
    if arguments.command == "listen":
        return await listen(arguments)
    account = ETHAccount(bytes.fromhex(arguments.key.removeprefix("0x")))
    async with AuthenticatedAlephHttpClient(account, api_server=arguments.ccn) as client:
        if arguments.command == "upload":
            message, status = await client.create_store(
                file_path=arguments.file, payment=payment(arguments.payment), sync=True, channel="TEST"
            )
            return report(message, status)
        if arguments.command == "publish":
            message, status = await client.create_program(
                program_ref=arguments.code,
                entrypoint=arguments.entrypoint,
                runtime=arguments.runtime,
                payment=payment(arguments.payment),
                memory=arguments.memory,
                timeout_seconds=arguments.seconds,
                encoding=Encoding(arguments.encoding),
                internet=arguments.internet,
                environment_variables=json.loads(arguments.variables),
                volumes=json.loads(arguments.volumes),
                sync=arguments.sync,
                channel="TEST",
            )
            return report(message, status)
        if arguments.command == "wait":
            for _ in range(200):
                status = await client.get_message_status(arguments.hash)
                if status.value != "pending":
                    return {"status": status.value}
                await asyncio.sleep(0.1)
            return {"status": "pending"}
        if arguments.command == "post":
            message, status = await client.create_post(
                post_content=json.loads(arguments.content),
                post_type=arguments.type,
                channel=arguments.channel,
                sync=True,
            )
            return report(message, status)
        if arguments.command == "aggregate":
            message, status = await client.create_aggregate(
                key=arguments.name, content=json.loads(arguments.content), channel="TEST", sync=True
            )
            fetched = await client.fetch_aggregate(account.get_address(), arguments.name)
            return {**report(message, status), "fetched": fetched}
        if arguments.command == "balance":
            balance = await client.get_balances(account.get_address())
            return json.loads(balance.model_dump_json())
        if arguments.command == "messages":
            kinds = [MessageType(arguments.type)] if arguments.type else None
            answer = await client.get_messages(
                message_filter=MessageFilter(addresses=[account.get_address()], message_types=kinds)
            )
            return {"hashes": [str(message.item_hash) for message in answer.messages]}
    raise SystemExit(f"unknown command {arguments.command}")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A user of the network, played with the official Python SDK.")
    parser.add_argument("--ccn")
    parser.add_argument("--key")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new-account")
    upload = commands.add_parser("upload")
    upload.add_argument("file")
    upload.add_argument("--payment", default="credit")
    publish = commands.add_parser("publish")
    publish.add_argument("--code", required=True)
    publish.add_argument("--runtime", required=True)
    publish.add_argument("--entrypoint", required=True)
    publish.add_argument("--encoding", default="zip")
    publish.add_argument("--memory", type=int, default=256)
    publish.add_argument("--seconds", type=int, default=60)
    publish.add_argument("--variables", default="{}")
    publish.add_argument("--volumes", default="[]")
    publish.add_argument("--internet", action="store_true")
    publish.add_argument("--payment", default="credit")
    publish.add_argument("--sync", action="store_true")
    wait = commands.add_parser("wait")
    wait.add_argument("hash")
    post = commands.add_parser("post")
    post.add_argument("type")
    post.add_argument("content")
    post.add_argument("--channel", default="TEST")
    aggregate = commands.add_parser("aggregate")
    aggregate.add_argument("name")
    aggregate.add_argument("content")
    commands.add_parser("balance")
    messages = commands.add_parser("messages")
    messages.add_argument("--type")
    websocket = commands.add_parser("websocket")
    websocket.add_argument("url")
    websocket.add_argument("texts", nargs="+")
    listen = commands.add_parser("listen")
    listen.add_argument("url")
    listen.add_argument("count", type=int)
    commands.add_parser("session")
    return parser


def session(parser: argparse.ArgumentParser) -> None:
    for line in sys.stdin:
        try:
            answer = {"answer": asyncio.run(run(parser.parse_args(json.loads(line))))}
        except BaseException as error:  # a command line that does not parse ends the process otherwise
            if isinstance(error, KeyboardInterrupt):
                raise
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def main() -> None:
    arguments = parser().parse_args()
    if arguments.command == "session":
        session(parser())
    else:
        print(json.dumps(asyncio.run(run(arguments))))


if __name__ == "__main__":
    sys.exit(main())
