"""What programs do with aleph-sdk-python, one flow a call: flows.py NAME [WORD...]. JSON on stdout.

The node and the key come from the variables that the library itself reads.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from aleph.sdk.chains.ethereum import ETHAccount
from aleph.sdk.client import AuthenticatedAlephHttpClient
from aleph.sdk.conf import settings
from aleph.sdk.exceptions import (
    ForgottenMessageError,
    InsufficientFundsError,
    InvalidMessageError,
    MessageNotFoundError,
)
from aleph.sdk.query.filters import MessageFilter, PostFilter
from aleph.sdk.types import StorageEnum
from aleph_message.models import Chain, ItemHash, MessageType, Payment, PaymentType
from aleph_message.models.execution.environment import (
    HostRequirements,
    HypervisorType,
    NodeRequirements,
)

CREDIT = Payment(chain=Chain.ETH, type=PaymentType.credit, receiver=None)


def account() -> ETHAccount:
    return ETHAccount(bytes.fromhex(settings.PRIVATE_KEY_STRING.removeprefix("0x")))


async def all_pages(ask) -> list:
    """Follows a cursor to its end."""
    found, cursor = [], ""
    while cursor is not None:
        page = await ask(cursor)
        found.append(page)
        cursor = page.next_cursor
    return found


async def posts(client, me) -> dict:
    inline, status = await client.create_post(
        {"title": "a"}, "note", channel="FLOWS", sync=True
    )
    long, _ = await client.create_post(
        {"text": "long " * 20_000}, "note", channel="FLOWS", inline=False, sync=True
    )
    await client.create_post(
        {"title": "b"}, "amend", ref=inline.item_hash, channel="FLOWS", sync=True
    )
    by_channel = await client.get_posts(post_filter=PostFilter(channels=["FLOWS"], addresses=[me]))
    pages = await all_pages(
        lambda cursor: client.get_messages_cursor(
            page_size=2, cursor=cursor, message_filter=MessageFilter(addresses=[me])
        )
    )
    found = await client.get_message(long.item_hash)
    await client.forget([ItemHash(inline.item_hash)], reason="flow", sync=True)
    try:
        await client.get_message(inline.item_hash)
        forgotten = False
    except ForgottenMessageError:
        forgotten = True
    try:
        await client.get_message("ab" * 32)
        unknown = False
    except MessageNotFoundError:
        unknown = True
    left = await client.get_posts(post_filter=PostFilter(addresses=[me]))
    return {
        "status": status.value,
        "titles": sorted(post.content.get("title", "") for post in by_channel.posts),
        "total": by_channel.pagination_total,
        "pages": [len(page.messages) for page in pages],
        "item_type": found.item_type.value,
        "length": len(found.content.content["text"]),
        "forgotten": forgotten,
        "unknown": unknown,
        "left": len(left.posts),
        "status_of_forgotten": (await client.get_message_status(inline.item_hash)).value,
    }


async def aggregates(client, me) -> dict:
    await client.create_aggregate("profile", {"name": "Ada", "age": 36}, sync=True)
    await client.create_aggregate("profile", {"age": 37}, inline=False, sync=True)
    await client.create_aggregate("other", {"a": [1, None]}, sync=True)
    listed = await client.list_aggregates(addresses=[me])
    return {
        "one": await client.fetch_aggregate(me, "profile"),
        "all": await client.fetch_aggregates(me),
        "none": await client.get_aggregate(me, "nothing"),
        "listed": sorted(entry["key"] for entry in listed.aggregates),
        "total": listed.pagination_total,
    }


async def files(client, me) -> dict:
    small, status = await client.create_store(
        file_content=b"hello world\n", storage_engine=StorageEnum.storage, payment=CREDIT, sync=True
    )
    folder = Path(tempfile.mkdtemp())
    (folder / "big").write_bytes(bytes(range(256)) * 20_000)
    big, _ = await client.create_store(
        file_path=folder / "big", storage_engine=StorageEnum.ipfs, payment=CREDIT, sync=True
    )
    listed = await client.get_account_files(me)
    stored = await client.get_stored_content(big.item_hash)
    price = await client.get_program_price(big.item_hash)
    estimate = await client.get_store_estimated_price(30)
    return {
        "status": status.value,
        "small": (await client.download_file(small.content.item_hash)).decode(),
        "big": (await client.download_file(big.content.item_hash)) == bytes(range(256)) * 20_000,
        "cid": str(big.content.item_hash),
        "listed": [str(entry.item_hash) for entry in listed.files]
        == [str(big.item_hash), str(small.item_hash)],
        "size": listed.total_size,
        "stored": str(stored.hash),
        "price": [price.payment_type, price.cost],
        "estimate": [estimate.payment_type, estimate.cost],
    }


async def funds(client, me, image) -> dict:
    """Somebody without money is told so in the words that the library reads."""
    balance = await client.get_balances(me)
    answers = {}
    for name, payment in [("hold", None), ("credit", CREDIT)]:
        try:
            await client.create_program(
                program_ref=image, entrypoint="main:app", runtime=image, payment=payment, sync=True
            )
            answers[name] = None
        except InsufficientFundsError as error:
            answers[name] = [error.token_type.value, error.required_funds > error.available_funds]
        except InvalidMessageError as error:
            answers[name] = str(error)
        except ValueError as error:
            answers[name] = str(error)
    return {"balance": [str(balance.balance), balance.credit_balance], **answers}


async def instance(client, me, node, image) -> dict:
    message, status = await client.create_instance(
        rootfs=image,
        rootfs_size=20_480,
        payment=CREDIT,
        hypervisor=HypervisorType.qemu,
        vcpus=1,
        memory=2_048,
        metadata={"name": "machine"},
        ssh_keys=["ssh-ed25519 AAAA"],
        requirements=HostRequirements(node=NodeRequirements(node_hash=node)),
        sync=True,
    )
    return {"item_hash": str(message.item_hash), "status": status.value}


async def network(client, me) -> dict:
    """What the network says of itself, through the models of the library."""
    pricing = await client.pricing.get_pricing_aggregate()
    network_settings = await client.network_settings.get_settings_aggregate()
    crns = await client.crn.get_crns_list(only_active=False)
    answer = {
        "entities": sorted(entity.value for entity in pricing.root),
        "gpus": len(network_settings.compatible_gpus),
        "crns": [[crn.hash, crn.address] for crn in crns.crns],
    }
    if hasattr(client, "runtimes"):
        answer["runtimes"] = [
            [entry.id, entry.type.value, entry.item_hash, entry.default]
            for entry in (await client.runtimes.get_runtimes_aggregate()).entries
        ]
    return answer


async def accounts(client, me) -> dict:
    """Lists over all accounts."""
    history = await client.get_credit_history(me)
    balances = await client.get_chain_balances()
    stats = await client.get_address_stats()
    return {
        "history": [entry.amount for entry in history.credit_history],
        "balances": [str(entry.balance) for entry in balances.balances if entry.address == me],
        "stats": stats.data[me].model_dump() if me in stats.data else None,
    }


async def watch(client, me) -> dict:
    """Hears what is published after it has begun to listen."""
    heard = []

    async def listen() -> None:
        async for message in client.watch_messages(MessageFilter(addresses=[me], message_types=[MessageType.post])):
            heard.append(message.content.content["number"])
            if len(heard) >= 3:
                return

    listening = asyncio.create_task(listen())
    number = 0
    while not listening.done() and number < 200:
        await client.create_post({"number": number}, "watched", sync=True)
        number += 1
        await asyncio.sleep(0.05)
    await asyncio.wait_for(listening, 30)
    return {"heard": heard}


FLOWS = {
    flow.__name__: flow
    for flow in [posts, aggregates, files, funds, instance, network, accounts, watch]
}


async def main(name: str, words: list) -> None:
    me = account()
    async with AuthenticatedAlephHttpClient(me, api_server=settings.API_HOST) as client:
        print(json.dumps(await FLOWS[name](client, me.get_address(), *words)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
