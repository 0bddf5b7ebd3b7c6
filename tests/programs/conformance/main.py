"""A FastAPI application that uses what applications use, so that tests can look at each of it."""

import asyncio
import hashlib
import os
import sys
import time
from contextlib import asynccontextmanager

from fastapi import FastAPI, Form, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel

started = {"hooks": 0, "requests_before_startup": 0}


@asynccontextmanager
async def lifespan(app: FastAPI):
    started["hooks"] += 1
    app.state.greeting = "set by the startup hook"
    yield {"from_lifespan": "state reaches requests"}
    print("shutdown hook ran", flush=True)


app = FastAPI(lifespan=lifespan)


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []


@app.get("/")
async def index():
    return {"Example": "conformance", "startup_hooks": started["hooks"]}


@app.get("/lifespan")
async def lifespan_state(request: Request):
    return {"app_state": request.app.state.greeting, "request_state": request.state.from_lifespan}


@app.get("/items/{item_id}")
async def item(item_id: int, q: str | None = None, limit: int = 10):
    return {"item_id": item_id, "q": q, "limit": limit}


@app.post("/items")
async def create(item: Item):
    return {"name": item.name, "total": item.price * 2, "tags": item.tags}


@app.post("/form")
async def form(text: str = Form(), number: int = Form()):
    return {"text": text, "number": number}


@app.api_route("/scope/{rest:path}", methods=["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def scope(request: Request):
    scope = request.scope
    return {
        "method": scope["method"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode("ascii"),
        "query_string": scope["query_string"].decode("ascii"),
        "http_version": scope["http_version"],
        "url": str(request.url),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
    }


@app.post("/upload")
async def upload(request: Request):
    digest, size, chunks = hashlib.sha256(), 0, 0
    async for chunk in request.stream():
        digest.update(chunk)
        size += len(chunk)
        chunks += 1
    return {"size": size, "sha256": digest.hexdigest(), "chunks": chunks}


def blocks(size: int):
    """Deterministic bytes: block i is the SHA-256 of i, over and over."""
    sent, index = 0, 0
    while sent < size:
        block = (hashlib.sha256(str(index).encode()).digest() * 2048)[: size - sent]
        yield block
        sent += len(block)
        index += 1


@app.get("/download/{size}")
async def download(size: int):
    return StreamingResponse(blocks(size), media_type="application/octet-stream")


@app.get("/events")
async def events(count: int = 5, gap: float = 0.2):
    async def stream():
        for index in range(count):
            yield f"id: {index}\ndata: tick {index}\n\n"
            await asyncio.sleep(gap)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text("echo: " + message["text"])
            else:
                await socket.send_bytes(message["bytes"][::-1])
    except WebSocketDisconnect:
        return


@app.get("/environ")
async def environ():
    return dict(os.environ)


@app.get("/clock")
async def clock():
    return {"time": time.time()}


@app.get("/random")
async def random():
    return {"bytes": os.urandom(16).hex()}


@app.get("/missing")
async def missing():
    return JSONResponse({"detail": "the program's own 404"}, status_code=404, headers={"x-own": "yes"})


@app.get("/teapot")
async def teapot():
    raise HTTPException(status_code=418, detail="short and stout")


@app.get("/redirect")
async def redirect():
    return RedirectResponse("/items/7", status_code=307)


@app.get("/cookies")
async def cookies():
    response = JSONResponse({"set": 2})
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")
    return response


@app.get("/raise")
async def fail():
    raise RuntimeError("a mistake of the application")


@app.get("/raise-sync")
def fail_sync():
    return {"never": 1 / 0}


@app.get("/crash")
async def crash():
    sys.exit(1)


@app.get("/slow/{seconds}")
async def slow(seconds: float):
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.get("/block/{seconds}")
def block(seconds: float):
    time.sleep(seconds)
    return {"blocked": seconds}


@app.get("/print")
async def print_lines():
    print("a line on stdout", flush=True)
    print("a line on stderr", file=sys.stderr, flush=True)
    return {"printed": 2}
