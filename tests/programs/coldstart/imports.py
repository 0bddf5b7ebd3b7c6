"""FastAPI with what larger programs import: some 50 MB of memory more than without."""

import aiohttp
import cryptography.hazmat.primitives.asymmetric.rsa
import cryptography.x509
import httpx
import jinja2
import orjson
import pydantic_settings
import requests
import sse_starlette
import yaml
from fastapi import FastAPI

# What a model or a table of a real program would be.
TABLE = [(number, str(number)) for number in range(150_000)]

app = FastAPI()


@app.get("/")
def hello():
    return {"modules": len([aiohttp, cryptography, httpx, jinja2, orjson, pydantic_settings, requests, sse_starlette, yaml]), "rows": len(TABLE)}
