"""A user of the network with nothing but the official Python SDK. One command a call, JSON on stdout.

    user.py new-account
    user.py --ccn URL --key HEX upload FILE [--payment credit|hold]
    user.py --ccn URL --key HEX publish --code HASH --runtime HASH --entrypoint TEXT [options]
    user.py --ccn URL --key HEX wait HASH
    user.py --ccn URL --key HEX post TYPE JSON
    user.py --ccn URL --key HEX aggregate KEY JSON
"""

import argparse
import asyncio
import json
import secrets
import sys

from aleph.sdk.chains.ethereum import ETHAccount
from aleph.sdk.client import AuthenticatedAlephHttpClient
from aleph_message.models import Chain, Payment, PaymentType
from aleph_message.models.execution.base import Encoding


def payment(kind: str) -> Payment:
    return Payment(chain=Chain.ETH, type=PaymentType(kind), receiver=None)


def report(message, status) -> dict:
    return {
        "item_hash": str(message.item_hash),
        "status": status.value,
        "content": json.loads(message.item_content) if message.item_content else None,
    }


async def run(arguments) -> dict:
    if arguments.command == "new-account":
        key = secrets.token_bytes(32)
        return {"private_key": key.hex(), "address": ETHAccount(key).get_address()}
    account = ETHAccount(bytes.fromhex(arguments.key))
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
                internet=False,
                environment_variables=json.loads(arguments.variables),
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
                post_content=json.loads(arguments.content), post_type=arguments.type, channel="TEST", sync=True
            )
            return report(message, status)
        if arguments.command == "aggregate":
            message, status = await client.create_aggregate(
                key=arguments.name, content=json.loads(arguments.content), channel="TEST", sync=True
            )
            fetched = await client.fetch_aggregate(account.get_address(), arguments.name)
            return {**report(message, status), "fetched": fetched}
    raise SystemExit(f"unknown command {arguments.command}")


def main() -> None:
    parser = argparse.ArgumentParser()
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
    publish.add_argument("--payment", default="credit")
    publish.add_argument("--sync", action="store_true")
    wait = commands.add_parser("wait")
    wait.add_argument("hash")
    post = commands.add_parser("post")
    post.add_argument("type")
    post.add_argument("content")
    aggregate = commands.add_parser("aggregate")
    aggregate.add_argument("name")
    aggregate.add_argument("content")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    sys.exit(main())
