"""As small as a FastAPI program can be, with a call that lasts."""

import asyncio

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.get("/")
def hello():
    return {"hello": "world"}


@app.get("/held")
def held():
    """Answers at once and ends when the caller does."""

    async def answer():
        yield b"held\n"
        while True:
            await asyncio.sleep(3600)

    return StreamingResponse(answer())
