"""A program that takes requests and never answers them."""

import asyncio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    await asyncio.Event().wait()
