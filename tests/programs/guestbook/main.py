"""A guestbook: the small web application that the demo deploys, written as anybody would."""

from datetime import datetime, timezone

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI(title="Guestbook")
entries: list[dict] = []


class Entry(BaseModel):
    name: str
    message: str


@app.get("/")
async def index():
    return {
        "application": "guestbook",
        "hello": "from a microVM",
        "entries": len(entries),
        "try": {"sign": "POST / {name, message}", "read": "GET /entries", "explore": "GET /docs"},
    }


@app.post("/", status_code=201)
async def sign(entry: Entry):
    entries.append({**entry.model_dump(), "at": datetime.now(timezone.utc).isoformat()})
    return {"entries": len(entries)}


@app.get("/entries")
async def read():
    return entries
